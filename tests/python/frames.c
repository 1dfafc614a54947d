/*
 * frames.c - a module that walks Python's frames as a profile does, but more:
 *
 *   walk(most)   [(file, function, line)], innermost first, as hak_py_walk finds
 *   works()      hak_py_walk_works
 *   watch()      from here on at every request of every domain a walk, which
 *                reads what it found
 *   unwatch()    (walks, frames, faults): faults are what can't be so
 */
#include "../../adapters/python/src/hak_py_frames.c"

#include <stdatomic.h>

#define DOMAINS 3
#define MOST 64

static PyMemAllocatorEx saved[DOMAINS];
static _Atomic(unsigned long) walks, frames, faults;

static bool is_text(PyObject *text)
{
    return text != NULL && PyUnicode_Check(text) &&
           PyUnicode_GET_LENGTH(text) > 0;
}

static void look(bool has_gil)
{
    struct hak_py_frame found[MOST];
    unsigned n = hak_py_walk(has_gil, found, MOST);

    for (unsigned i = 0; i < n; i++) {
        PyCodeObject *code = found[i].code;

        if (!PyCode_Check(code) || !is_text(code->co_filename) ||
            !is_text(code->co_name) || found[i].line < 0 ||
            strcmp(PyUnicode_AsUTF8(code->co_name),
                   "<interpreter trampoline>") == 0) {
            faults++;
        }
    }
    walks++;
    frames += n;
}

static bool has_gil(void *ctx)
{
    return ctx != &saved[PYMEM_DOMAIN_RAW];
}

static void *watch_malloc(void *ctx, size_t size)
{
    PyMemAllocatorEx *to = ctx;

    look(has_gil(ctx));
    return to->malloc(to->ctx, size);
}

static void *watch_calloc(void *ctx, size_t n, size_t size)
{
    PyMemAllocatorEx *to = ctx;

    look(has_gil(ctx));
    return to->calloc(to->ctx, n, size);
}

static void *watch_realloc(void *ctx, void *p, size_t size)
{
    PyMemAllocatorEx *to = ctx;

    look(has_gil(ctx));
    return to->realloc(to->ctx, p, size);
}

static void watch_free(void *ctx, void *p)
{
    PyMemAllocatorEx *to = ctx;

    to->free(to->ctx, p);
}

static PyObject *watch(PyObject *self, PyObject *unused)
{
    (void)self;
    (void)unused;
    for (int i = 0; i < DOMAINS; i++) {
        PyMemAllocatorEx hook = {&saved[i], watch_malloc, watch_calloc,
                                 watch_realloc, watch_free};

        PyMem_GetAllocator((PyMemAllocatorDomain)i, &saved[i]);
        PyMem_SetAllocator((PyMemAllocatorDomain)i, &hook);
    }
    Py_RETURN_NONE;
}

static PyObject *unwatch(PyObject *self, PyObject *unused)
{
    (void)self;
    (void)unused;
    for (int i = 0; i < DOMAINS; i++) {
        PyMem_SetAllocator((PyMemAllocatorDomain)i, &saved[i]);
    }
    return Py_BuildValue("kkk", walks, frames, faults);
}

static PyObject *walk(PyObject *self, PyObject *arg)
{
    struct hak_py_frame found[MOST];
    unsigned long most = PyLong_AsUnsignedLong(arg);
    unsigned n = hak_py_walk(true, found, most < MOST ? (unsigned)most : MOST);
    PyObject *list = PyList_New(n);

    (void)self;
    for (unsigned i = 0; list != NULL && i < n; i++) {
        PyList_SET_ITEM(list, i,
                        Py_BuildValue("OOi", found[i].code->co_filename,
                                      found[i].code->co_name, found[i].line));
    }
    return list;
}

static PyObject *works(PyObject *self, PyObject *unused)
{
    (void)self;
    (void)unused;
    return PyBool_FromLong(hak_py_walk_works());
}

static PyMethodDef functions[] = {{"walk", walk, METH_O, NULL},
                                  {"works", works, METH_NOARGS, NULL},
                                  {"watch", watch, METH_NOARGS, NULL},
                                  {"unwatch", unwatch, METH_NOARGS, NULL},
                                  {NULL, NULL, 0, NULL}};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT,
                                        .m_name = "frames", .m_size = -1,
                                        .m_methods = functions};

PyMODINIT_FUNC PyInit_frames(void)
{
    return PyModule_Create(&definition);
}
