/*
 * embed.c - programs that embed Python; run by test_embed.py.
 *
 *     embed debug   sets up the debug hooks by PyMem_SetupDebugHooks first
 *     embed twice   begins and ends the interpreter three times
 *     embed frozen  the same, with all that lives frozen, immortal from 3.12 on
 *     embed legacy  Py_NewInterpreter, with the one GIL up to 3.11
 */
#include <Python.h>
#include <string.h>

static int run(const char *text)
{
    int failed = PyRun_SimpleString(text);

    return failed != 0 ? 1 : 0;
}

static int finish(int failed)
{
    return Py_FinalizeEx() != 0 ? 1 : failed;
}

static int debug(void)
{
    PyMem_SetupDebugHooks();
    Py_Initialize();
    return finish(run("import hakmem_py\n"
                      "from churn import churn\n"
                      "churn()\n"
                      "assert hakmem_py.enabled is False\n"
                      "assert 'debug hooks' in hakmem_py.reason\n"
                      "print('fine', flush=True)\n"));
}

static int twice(const char *before_the_end)
{
    int failed = 0;

    for (int i = 0; i < 3; i++) {
        Py_Initialize();
        failed |=
            run("import hakmem_py\n"
                "from churn import churn\n"
                "churn()\n"
                "assert hakmem_py.enabled, hakmem_py.reason\n"
                "before = hakmem_py.stats()['obj']['tiny_allocs']\n"
                "kept = [str(i) for i in range(3000)]\n"
                "assert hakmem_py.stats()['obj']['tiny_allocs'] > before\n");
        failed |= run(before_the_end);
        failed = finish(failed);
    }
    puts(failed ? "failed" : "fine");
    return failed;
}

static int legacy(void)
{
    PyThreadState *first, *second;
    int failed;

    Py_Initialize();
    first = PyThreadState_Get();
    failed = run("import hakmem_py\nkept = [str(i) for i in range(9999)]\n");
    second = Py_NewInterpreter();
    failed |= run("import hakmem_py\nfrom churn import churn\nchurn()\n"
                  "assert hakmem_py.enabled\n");
    PyThreadState_Swap(first);
    failed |= run("from churn import churn\nchurn()\n");
    PyThreadState_Swap(second);
    failed |= run("churn()\n");
    Py_EndInterpreter(second);
    PyThreadState_Swap(first);
    failed |= run("del kept\nchurn()\nprint('fine', flush=True)\n");
    return finish(failed);
}

int main(int argc, char **argv)
{
    const char *what = argc == 2 ? argv[1] : "";

    if (strcmp(what, "debug") == 0) {
        return debug();
    }
    if (strcmp(what, "twice") == 0) {
        return twice("");
    }
    if (strcmp(what, "frozen") == 0) {
        return twice("import sys, json, datetime, threading\n"
                     "hakmem_py.freeze(immortal=sys.version_info >= (3, 12))\n"
                     "kept.append('later')\n"
                     "churn()\n");
    }
    return strcmp(what, "legacy") == 0 ? legacy() : 2;
}
