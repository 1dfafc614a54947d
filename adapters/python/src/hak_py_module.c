/*
 * hak_py_module.c - the module hakmem_py._hakmem; users see it through
 * hakmem_py/__init__.py.
 *
 * There is one allocator per process, however many interpreters import the
 * module: all state is in C, behind `lock`. The shared object must stay mapped
 * when the interpreter is gone (-z nodelete).
 */
#include <malloc.h>

#include "hak_py.h"

PyMODINIT_FUNC PyInit__hakmem(void);

#ifdef Py_GIL_DISABLED

/* Before anything else, so that the import leaves no trace. */
PyMODINIT_FUNC PyInit__hakmem(void)
{
    PyErr_SetString(PyExc_ImportError,
                    "hakmem_py: this is a free-threaded build of Python, whose "
                    "collector looks for objects in the interpreter's own "
                    "heaps; no other allocator can serve them");
    return NULL;
}

#else

/* A switch that a fork cuts short happens in the child the next time it is
 * asked for: there is nothing to mend. */
static hak_lock lock = HAK_LOCK_INIT(NULL);

static PyObject *not_beneath(PyObject *type)
{
    PyErr_SetString(type, "hakmem_py: tracemalloc is tracing and the allocator "
                          "beneath it could not be found; import hakmem_py "
                          "before tracemalloc.start()");
    return NULL;
}

/* Whether memory goes back while the program sleeps; -1: as the variable says.
 * Under the GIL. */
static int wants_idle = -1;

/* Not under `lock`: releases the GIL for a moment. */
static void begin_idle(void)
{
    bool on = wants_idle >= 0 ? wants_idle != 0
                              : hak_py_option(HAK_PY_OPT_give_back) != 0;

    if (on && hak_py_enabled() != 0) {
        hak_py_gil_find();
        hak_py_idle_watch_forks();
        hak_py_idle_allow(true);
    }
}

/* Sets HAKMEM_PYTHON_LIMIT, which can't be reached yet: the program is
 * starting. */
static void set_first_limit(unsigned mask, bool tracing)
{
    size_t limit = hak_py_option(HAK_PY_OPT_limit);
    const char *reason = mask == 0 ? "HAKMEM_PYTHON=off" : hak_py.reason;

    if (limit == 0) {
        return;
    }
    if (reason == NULL && limit < HAK_PY_LEAST_LIMIT) {
        reason = "no program fits in less than 1M";
    }
    if (reason == NULL && hak_py_install(HAK_PY_ALL, tracing) == HAK_PY_FOUND &&
        hak_py_set_limit(limit, true)) {
        return;
    }
    haki_warn("HAKMEM_PYTHON_LIMIT=%zu: there is no limit: %s", limit,
              reason != NULL ? reason : "more than that is in use");
}

/* Enables the mask, or, if `once`, what HAKMEM_PYTHON asks for, the first time.
 */
static PyObject *enable(unsigned mask, bool once)
{
    static bool done;
    int tracing = hak_py_is_tracing();
    bool good = true;

    if (tracing < 0) {
        return NULL;
    }
    haki_lock_take(&lock);
    if (!once || hak_py_forget() || !done) {
        good = hak_py_enable(mask, tracing);
        if (good && mask == 0) {
            hak_py.reason = once ? "HAKMEM_PYTHON=off" : "no domain is enabled";
        }
        if (good && once && !done) {
            set_first_limit(mask, tracing);
            if (mask !=
                0) { /* HAKMEM_PROFILE, guards, or somebody will ask for one */
                hak_py_profile_frames(hak_profile_rate() != 0 ||
                                      hak_guard_rate() != 0);
            }
        }
        done |= good;
    }
    haki_lock_drop(&lock);
    if (good) {
        begin_idle();
    }
    return good ? Py_BuildValue("")
                : not_beneath(once ? PyExc_ImportError : PyExc_RuntimeError);
}

static PyObject *py_start(PyObject *self, PyObject *unused)
{
    (void)self;
    (void)unused;
    return enable(hak_py_mask_asked(), true);
}

static PyObject *py_enable(PyObject *self, PyObject *arg)
{
    unsigned long mask = PyLong_AsUnsignedLong(arg);

    (void)self;
    return PyErr_Occurred() ? NULL : enable((unsigned)mask, false);
}

static PyObject *py_disable(PyObject *self, PyObject *unused)
{
    (void)self;
    (void)unused;
    haki_lock_take(&lock);
    hak_py_switch(0);
    if (hak_py.whole) {
        hak_py_set_limit(HAK_PY_NO_LIMIT, false);
    }
    hak_py.reason = "hakmem_py.disable() was called";
    haki_lock_drop(&lock);
    return Py_BuildValue("");
}

static PyObject *py_enabled(PyObject *self, PyObject *unused)
{
    (void)self;
    (void)unused;
    return PyLong_FromUnsignedLong(hak_py_enabled());
}

static PyObject *py_reason(PyObject *self, PyObject *unused)
{
    const char *reason = hak_py_why();

    (void)self;
    (void)unused;
    return reason != NULL ? PyUnicode_FromString(reason) : Py_BuildValue("");
}

static PyObject *py_stats(PyObject *self, PyObject *arg)
{
    int classes = PyObject_IsTrue(arg);

    (void)self;
    return classes < 0 ? NULL : hak_py_stats(classes);
}

static PyObject *py_allocated_blocks(PyObject *self, PyObject *unused)
{
    (void)self;
    (void)unused;
    return PyLong_FromUnsignedLongLong(hak_py_blocks());
}

static PyObject *py_trim(PyObject *self, PyObject *unused)
{
    size_t bytes = 0;

    (void)self;
    (void)unused;
    if (hak_py_heap() != NULL) {
        bytes = haki_embed_sweep(hak_py.heap);
    }
    bytes += hak_trim();
    malloc_trim(0);
    return PyLong_FromSize_t(bytes);
}

/* ---- who gives memory back while the program sleeps: hak_py_idle.c ------- */

static PyObject *py_give_back(PyObject *self, PyObject *arg)
{
    int on = PyObject_IsTrue(arg);

    (void)self;
    if (on < 0) {
        return NULL;
    }
    wants_idle = on;
    if (on != 0) {
        begin_idle();
    } else {
        hak_py_idle_allow(false);
    }
    return Py_BuildValue("");
}

/* The interpreter ends. */
static PyObject *py_at_exit(PyObject *self, PyObject *unused)
{
    (void)self;
    (void)unused;
    hak_py_idle_allow(false);
    return Py_BuildValue("");
}

/*
 * Around os.fork. From 3.12 on it counts the process's threads, in 3.13 after
 * all of Python's handlers, so the thread is restarted when the caller's frame
 * continues.
 */
static PyObject *py_before_fork(PyObject *self, PyObject *unused)
{
    (void)self;
    (void)unused;
    hak_py_idle_hold();
    return Py_BuildValue("");
}

#define COUNTS_THREADS (PY_VERSION_HEX >= 0x030c0000)

/* Runs in the main thread. The frame is compared but not accessed; in other
 * handlers, or if another thread forked, it is a different one: then a later
 * request restarts the thread. */
static int resume(void *frame)
{
    if ((void *)PyEval_GetFrame() == frame) {
        hak_py_idle_resume();
    }
    return 0;
}

static PyObject *py_after_fork(PyObject *self, PyObject *unused)
{
    (void)self;
    (void)unused;
    if (hak_py_idle_release(COUNTS_THREADS)) {
        Py_AddPendingCall(resume, PyEval_GetFrame());
    }
    return Py_BuildValue("");
}

static PyObject *py_is_main(PyObject *self, PyObject *unused)
{
    (void)self;
    (void)unused;
    return PyBool_FromLong(PyInterpreterState_Get() ==
                           PyInterpreterState_Main());
}

/* ---- and the rest --------------------------------------------------------- */

/* For parents of many children: see hak_seal. */
static PyObject *py_seal(PyObject *self, PyObject *unused)
{
    (void)self;
    (void)unused;
    if (hak_py_heap() != NULL) {
        hak_heap_seal(hak_py.heap);
    }
    hak_seal();
    return Py_BuildValue("");
}

/* HAKMEM_PYTHON_FREEZE: whether it asks for freeze(immortal=True) or the
 * opposite. */
enum { FREEZE_DEFAULT, FREEZE_PLAIN, FREEZE_IMMORTAL };

static PyObject *py_freezes_immortal(PyObject *self, PyObject *unused)
{
    (void)self;
    (void)unused;
    return PyBool_FromLong(hak_py_option(HAK_PY_OPT_freeze) == FREEZE_IMMORTAL);
}

static PyObject *py_freezes_plain(PyObject *self, PyObject *unused)
{
    (void)self;
    (void)unused;
    return PyBool_FromLong(hak_py_option(HAK_PY_OPT_freeze) == FREEZE_PLAIN);
}

static PyObject *py_freezes_forks(PyObject *self, PyObject *unused)
{
    (void)self;
    (void)unused;
    return PyBool_FromLong(hak_py_freezes_forks());
}

#if HAK_PY_IMMORTAL

/* The types whose objects may become immortal, and a class made in Python. */
static PyObject *py_immortal(PyObject *self, PyObject *args)
{
    PyObject *known, *some_class;

    (void)self;
    if (!PyArg_ParseTuple(args, "O!O!", &PyTuple_Type, &known, &PyType_Type,
                          &some_class)) {
        return NULL;
    }
    if (PyInterpreterState_Get() != PyInterpreterState_Main()) {
        PyErr_SetString(PyExc_RuntimeError,
                        "hakmem_py.freeze(immortal=True): this is not the main "
                        "interpreter, whose processes fork; call it there");
        return NULL;
    }
    return hak_py_immortal(known, (PyTypeObject *)some_class);
}

#endif

static PyObject *py_unfinished(PyObject *self, PyObject *objects)
{
    (void)self;
    return hak_py_unfinished(objects);
}

/* Runs an object's finalizer, unless it has run. */
static PyObject *py_finish(PyObject *self, PyObject *op)
{
    (void)self;
    PyObject_CallFinalizer(op);
    return Py_BuildValue("");
}

/* A limit from Python: bytes, or None. False: an exception. */
static bool limit_from(PyObject *arg, size_t *limit)
{
    *limit = HAK_PY_NO_LIMIT;
    if (arg != Py_None) {
        *limit = PyLong_AsSize_t(arg);
        if (PyErr_Occurred()) {
            return false;
        }
        *limit = haki_min(*limit, HAK_PY_NO_LIMIT);
    }
    return true;
}

/* Sets it; returns the one from before, or NULL. */
static PyObject *change_limit(const char *name, size_t limit, bool whole)
{
    size_t before = hak_py.limit;
    bool done;

    haki_lock_take(&lock);
    done = hak_py_set_limit(limit, whole);
    haki_lock_drop(&lock);
    if (!done) {
        return PyErr_Format(PyExc_ValueError,
                            "hakmem_py.%s(%zu): %zu bytes are in use "
                            "already; free some or set a higher limit",
                            name, limit, hak_py_live());
    }
    return before == HAK_PY_NO_LIMIT ? Py_BuildValue("")
                                     : PyLong_FromSize_t(before);
}

static PyObject *py_limit_served(PyObject *self, PyObject *arg)
{
    size_t limit;

    (void)self;
    return limit_from(arg, &limit) ? change_limit("limit_served", limit, false)
                                   : NULL;
}

static PyObject *py_limit_memory(PyObject *self, PyObject *arg)
{
    enum hak_py_found found = HAK_PY_FOUND;
    int tracing = hak_py_is_tracing();
    size_t limit;

    (void)self;
    if (tracing < 0 || !limit_from(arg, &limit)) {
        return NULL;
    }
    if (limit != HAK_PY_NO_LIMIT) {
        haki_lock_take(&lock);
        hak_py_forget();
        found = hak_py_install(HAK_PY_ALL, tracing);
        haki_lock_drop(&lock);
    }
    if (found == HAK_PY_FOUND_NOTHING) {
        return not_beneath(PyExc_RuntimeError);
    }
    if (found != HAK_PY_FOUND) {
        return PyErr_Format(PyExc_RuntimeError,
                            "hakmem_py.limit_memory(%zu): can't be kept: %s",
                            limit, hak_py.reason);
    }
    return change_limit("limit_memory", limit, true);
}

/* ---- profiles: hak_py_profile.c -------------------------------------------- */

/* From here on a sample each so many bytes; returns the rate that holds. */
static PyObject *py_profile_start(PyObject *self, PyObject *args)
{
    int tracing = hak_py_is_tracing();
    enum hak_py_found found;
    bool begun = false;
    PyObject *runs;
    Py_ssize_t asked;
    size_t rate;

    (void)self;
    if (tracing < 0 || !PyArg_ParseTuple(args, "nU", &asked, &runs)) {
        return NULL;
    }
    rate = (size_t)asked;
    haki_lock_take(&lock);
    hak_py_forget();
    found = hak_py_install(HAK_PY_ALL, tracing);
    if (found == HAK_PY_FOUND) {
        begun = hak_py_profile_begin(rate, runs);
    }
    rate = hak_py_profile_rate();
    haki_lock_drop(&lock);
    if (found == HAK_PY_FOUND_NOTHING) {
        return not_beneath(PyExc_RuntimeError);
    }
    if (found != HAK_PY_FOUND) {
        return PyErr_Format(PyExc_RuntimeError,
                            "hakmem_py.profile: there can be none: %s",
                            hak_py.reason);
    }
    return begun ? PyLong_FromSize_t(rate) : PyErr_NoMemory();
}

static PyObject *py_guard(PyObject *self, PyObject *arg)
{
    Py_ssize_t rate = PyLong_AsSsize_t(arg);
    size_t before;
    bool good;

    (void)self;
    if (rate < 0) {
        return PyErr_Occurred() ? NULL : PyErr_NoMemory();
    }
    haki_lock_take(&lock);
    good = hak_py_guard((size_t)rate, &before);
    haki_lock_drop(&lock);
    return good ? PyLong_FromSize_t(before) : PyErr_NoMemory();
}

static PyObject *py_profile_stop(PyObject *self, PyObject *unused)
{
    (void)self;
    (void)unused;
    haki_lock_take(&lock);
    hak_py_profile_end();
    haki_lock_drop(&lock);
    return Py_BuildValue("");
}

static PyObject *py_profile_read(PyObject *self, PyObject *unused)
{
    (void)self;
    (void)unused;
    return hak_py_profile_read();
}

static PyObject *py_profile_grown(PyObject *self, PyObject *args)
{
    PyObject *later, *earlier;

    (void)self;
    return PyArg_ParseTuple(args, "OO", &later, &earlier)
               ? hak_py_profile_grown(later, earlier)
               : NULL;
}

/* Bytes a sample where nothing else is said. */
static PyObject *py_profile_rate(PyObject *self, PyObject *unused)
{
    size_t rate = haki_option(HAK_OPT_profile_rate);

    (void)self;
    (void)unused;
    return PyLong_FromSize_t(rate != 0 ? rate : HAK_PROFILE_RATE);
}

/* HAKMEM_PYTHON_PROFILE, or None. */
static PyObject *py_profile_path(PyObject *self, PyObject *unused)
{
    (void)self;
    (void)unused;
    return hak_py_option(HAK_PY_OPT_profile) != 0
               ? PyUnicode_DecodeFSDefault(getenv("HAKMEM_PYTHON_PROFILE"))
               : Py_BuildValue("");
}

/* A copy, a file descriptor, the format's place among these. */
static PyObject *py_profile_write(PyObject *self, PyObject *args)
{
    static const int formats[] = {HAK_PROFILE_PAGE, HAK_PROFILE_PPROF,
                                  HAK_PROFILE_COLLAPSED,
                                  HAK_PROFILE_SPEEDSCOPE};
    unsigned format;
    PyObject *copy;
    int fd;

    (void)self;
    if (!PyArg_ParseTuple(args, "OiI", &copy, &fd, &format) ||
        !hak_py_profile_write(copy, fd, formats[format % 4])) {
        return NULL;
    }
    return Py_BuildValue("");
}

static PyObject *py_profile_list(PyObject *self, PyObject *capsule)
{
    (void)self;
    return hak_py_profile_list(capsule);
}

static PyObject *py_options(PyObject *self, PyObject *unused)
{
    (void)self;
    (void)unused;
    return hak_py_option_list();
}

static PyMethodDef functions[] = {
    {"start", py_start, METH_NOARGS, "what HAKMEM_PYTHON asks for, once"},
    {"enable", py_enable, METH_O, "the domains of a mask"},
    {"disable", py_disable, METH_NOARGS, "no domain"},
    {"enabled", py_enabled, METH_NOARGS, "a mask of domains"},
    {"reason", py_reason, METH_NOARGS, "why none is enabled"},
    {"stats", py_stats, METH_O, "figures; of each class, if true"},
    {"allocated_blocks", py_allocated_blocks, METH_NOARGS, "blocks in use"},
    {"trim", py_trim, METH_NOARGS, "give memory back to the system now"},
    {"give_back", py_give_back, METH_O, "while the program sleeps too?"},
    {"at_exit", py_at_exit, METH_NOARGS, "no thread from here on"},
    {"before_fork", py_before_fork, METH_NOARGS, "no thread until after_fork"},
    {"after_fork", py_after_fork, METH_NOARGS, "in the parent"},
    {"is_main", py_is_main, METH_NOARGS, "is this the main interpreter?"},
    {"seal", py_seal, METH_NOARGS, "leave shared pages alone from here on"},
    {"freezes_immortal", py_freezes_immortal, METH_NOARGS,
     "HAKMEM_PYTHON_FREEZE"},
    {"freezes_plain", py_freezes_plain, METH_NOARGS, "HAKMEM_PYTHON_FREEZE"},
    {"freezes_forks", py_freezes_forks, METH_NOARGS, "HAKMEM_PYTHON_SEAL"},
#if HAK_PY_IMMORTAL
    {"immortal", py_immortal, METH_VARARGS, "what lives, of these types"},
#endif
    {"unfinished", py_unfinished, METH_O, "of a list, what has a finalizer"},
    {"finish", py_finish, METH_O, "runs an object's finalizer"},
    {"limit_served", py_limit_served, METH_O, "of blocks of ours, or None"},
    {"limit_memory", py_limit_memory, METH_O, "of all domains, or None"},
    {"guard", py_guard, METH_O, "a guarded block each so many bytes"},
    {"profile_start", py_profile_start, METH_VARARGS,
     "a sample each so many bytes"},
    {"profile_stop", py_profile_stop, METH_NOARGS, "as often as it started"},
    {"profile_read", py_profile_read, METH_NOARGS, "a copy of the sums"},
    {"profile_grown", py_profile_grown, METH_VARARGS, "of copies"},
    {"profile_path", py_profile_path, METH_NOARGS, "HAKMEM_PYTHON_PROFILE"},
    {"profile_rate", py_profile_rate, METH_NOARGS, "HAKMEM_PROFILE_RATE"},
    {"profile_write", py_profile_write, METH_VARARGS, "a copy to a file"},
    {"profile_list", py_profile_list, METH_O, "a copy, as a list of tuples"},
    {"options", py_options, METH_NOARGS, "the variables that hold"},
    {NULL, NULL, 0, NULL}};

static int module_exec(PyObject *module)
{
    return PyModule_AddStringConstant(module, "__version__", hak_version());
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, (void *)(uintptr_t)module_exec},
#if PY_VERSION_HEX >= 0x030c0000
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
    {0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "hakmem_py._hakmem",
    .m_doc = "HAKMEM under CPython: see hakmem_py.", .m_methods = functions,
    .m_slots = slots};

PyMODINIT_FUNC PyInit__hakmem(void)
{
    return PyModuleDef_Init(&definition);
}

#endif
