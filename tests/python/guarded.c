/*
 * guarded.c - an extension that misuses its blocks: for the tests of guards.
 *
 *   new(size)       a block of PyMem_Malloc's, as a number
 *   free(p)         frees it
 *   write(p, at)    writes a byte, `at` from its beginning
 *   read(p, at)     reads one
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

static PyObject *new (PyObject *self, PyObject *arg)
{
    (void)self;
    return PyLong_FromVoidPtr(PyMem_Malloc(PyLong_AsSize_t(arg)));
}

static PyObject *drop(PyObject *self, PyObject *arg)
{
    (void)self;
    PyMem_Free(PyLong_AsVoidPtr(arg));
    Py_RETURN_NONE;
}

__attribute__((noinline)) void guarded_writes(volatile char *p)
{
    *p = 1;
}

static PyObject *put(PyObject *self, PyObject *args)
{
    unsigned long long p;
    long at;

    (void)self;
    if (!PyArg_ParseTuple(args, "Kl", &p, &at)) {
        return NULL;
    }
    guarded_writes((volatile char *)(uintptr_t)p + at);
    Py_RETURN_NONE;
}

static PyObject *get(PyObject *self, PyObject *args)
{
    unsigned long long p;
    long at;

    (void)self;
    if (!PyArg_ParseTuple(args, "Kl", &p, &at)) {
        return NULL;
    }
    return PyLong_FromLong(*((volatile char *)(uintptr_t)p + at));
}

static PyMethodDef functions[] = {{"new", new, METH_O, NULL},
                                  {"free", drop, METH_O, NULL},
                                  {"write", put, METH_VARARGS, NULL},
                                  {"read", get, METH_VARARGS, NULL},
                                  {NULL, NULL, 0, NULL}};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT,
                                    "guarded",
                                    NULL,
                                    0,
                                    functions,
                                    NULL,
                                    NULL,
                                    NULL,
                                    NULL};

PyMODINIT_FUNC PyInit_guarded(void)
{
    return PyModule_Create(&module);
}
