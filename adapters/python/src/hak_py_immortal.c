/*
 * hak_py_immortal.c - gives live objects PEP 683's immortal reference count, so
 * that a forked child that reads them writes nothing (CPython 3.12 and later).
 *
 * Every container that the collector knows is traversed, and what it refers to
 * becomes immortal. The containers themselves do not, so an object that only C
 * code or a running frame holds, such as a tuple that is being filled, stays as
 * it is. A referent that the collector does not know itself (a tuple or
 * dictionary without containers, a code object) is traversed in turn, from a
 * stack. A dictionary's traverse function skips keys that are strings.
 *
 * An object stays mortal if its end has a meaning:
 *   - its type, apart from classes made in Python, is not one of the known
 *     types: we can't know what other C code does at the end of its objects, or
 *     with a reference count of one;
 *   - it has a finalizer; a weak reference leads to it (except to a class:
 *     every class has one); it is a weak reference with a callback, or a module
 *     whose C code frees something.
 *
 * All of this runs under the GIL without calling Python code. If memory runs
 * out, what was done so far stays done, and is right.
 */
#include "hak_py.h"

#if HAK_PY_IMMORTAL

/*
 * 3.12 and 3.13 have one 32-bit count, 3.14 also a flag beside it: its
 * interpreter stack uses the flag alone to tell references that need not be
 * given back from those that are, without reading the count again.
 */
static void set_immortal(PyObject *op)
{
#if PY_VERSION_HEX >= 0x030e0000
    Py_SET_REFCNT(op, (Py_ssize_t)_Py_IMMORTAL_INITIAL_REFCNT);
#if SIZEOF_VOID_P > 4
    op->ob_flags |= _Py_IMMORTAL_FLAGS;
#endif
#else
    Py_SET_REFCNT(op, _Py_IMMORTAL_REFCNT);
#endif
}

/* A cache of judged types, by their address. */
#define JUDGED 1024

struct judged {
    PyTypeObject *type;
    bool good;
};

struct walk {
    PyObject *known;     /* const: a tuple of the types whose objects may */
    destructor of_class; /* const: tp_dealloc of classes made in Python */
    struct judged judged[JUDGED];
    PyObject **stack; /* immortal by now, still to be traversed */
    size_t depth, room;
    Py_ssize_t made;
    bool failed; /* no memory */
};

static bool is_known(const struct walk *walk, PyTypeObject *type)
{
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(walk->known); i++) {
        if (PyTuple_GET_ITEM(walk->known, i) == (PyObject *)type) {
            return true;
        }
    }
    return false;
}

static bool judge(const struct walk *walk, PyTypeObject *type)
{
    if (type->tp_finalize != NULL || type->tp_del != NULL) {
        return false;
    }
    while (type->tp_dealloc == walk->of_class && type->tp_base != NULL) {
        type = type->tp_base;
    }
    return is_known(walk, type);
}

static bool is_good_type(struct walk *walk, PyTypeObject *type)
{
    struct judged *judged = &walk->judged[(uintptr_t)type / 16 % JUDGED];

    if (HAK_UNLIKELY(judged->type != type)) {
        judged->type = type;
        judged->good = judge(walk, type);
    }
    return judged->good;
}

static bool has_weak_references(PyObject *op)
{
    return PyType_SUPPORTS_WEAKREFS(Py_TYPE(op)) && !PyType_Check(op) &&
           *PyObject_GET_WEAKREFS_LISTPTR(op) != NULL;
}

static bool frees_something(PyObject *module)
{
    PyModuleDef *def = PyModule_GetDef(module);

    return def != NULL && def->m_free != NULL;
}

/* Whether op may become immortal: see above. */
static bool is_good(struct walk *walk, PyObject *op)
{
    return is_good_type(walk, Py_TYPE(op)) && !has_weak_references(op) &&
           !(PyWeakref_Check(op) &&
             ((PyWeakReference *)op)->wr_callback != NULL) &&
           !(PyModule_Check(op) && frees_something(op));
}

static void push(struct walk *walk, PyObject *op)
{
    if (walk->depth == walk->room) {
        size_t room = walk->room == 0 ? 1024 : 2 * walk->room;
        PyObject **stack =
            PyMem_RawRealloc(walk->stack, room * sizeof(PyObject *));

        if (stack == NULL) {
            walk->failed = true;
            return;
        }
        walk->stack = stack;
        walk->room = room;
    }
    walk->stack[walk->depth++] = op;
}

/* A visitproc. */
static int make_immortal(PyObject *op, void *arg)
{
    struct walk *walk = arg;

    if (op == NULL || _Py_IsImmortal(op) || !is_good(walk, op)) {
        return 0;
    }
    set_immortal(op);
    walk->made++;
    if (PyCode_Check(op) ||
        (PyObject_IS_GC(op) && !PyObject_GC_IsTracked(op))) {
        push(walk, op);
    }
    return walk->failed;
}

static void visit_keys(PyObject *dict, struct walk *walk)
{
    PyObject *key, *value;
    Py_ssize_t at = 0;

    while (PyDict_Next(dict, &at, &key, &value)) {
        make_immortal(key, walk);
    }
}

/* Code objects, which the collector does not traverse. */
static void visit_code(const PyCodeObject *code, struct walk *walk)
{
    PyObject *const parts[] = {
        code->co_consts,         code->co_names,
        code->co_exceptiontable, code->co_localsplusnames,
        code->co_filename,       code->co_localspluskinds,
        code->co_name,           code->co_qualname,
        code->co_linetable};

    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
        make_immortal(parts[i], walk);
    }
}

static void traverse_one(PyObject *op, struct walk *walk)
{
    if (PyCode_Check(op)) {
        visit_code((PyCodeObject *)op, walk);
    } else if (Py_TYPE(op)->tp_traverse != NULL) {
        Py_TYPE(op)->tp_traverse(op, make_immortal, walk);
    }
    if (PyDict_Check(op)) {
        visit_keys(op, walk);
    }
}

/* A gcvisitobjects_t: a container that the collector knows. */
static int traverse(PyObject *op, void *arg)
{
    struct walk *walk = arg;

    traverse_one(op, walk);
    while (walk->depth != 0 && !walk->failed) {
        traverse_one(walk->stack[--walk->depth], walk);
    }
    return !walk->failed;
}

PyObject *hak_py_immortal(PyObject *known, PyTypeObject *some_class)
{
    struct walk *walk = PyMem_RawCalloc(1, sizeof(*walk));
    Py_ssize_t made;
    bool failed;

    if (walk == NULL) {
        return PyErr_NoMemory();
    }
    walk->known = known;
    walk->of_class = some_class->tp_dealloc;
    PyUnstable_GC_VisitObjects(traverse, walk);
    made = walk->made;
    failed = walk->failed;
    PyMem_RawFree(walk->stack);
    PyMem_RawFree(walk);
    return failed ? PyErr_NoMemory() : PyLong_FromSsize_t(made);
}

#endif

/* ---- finalizers at exit ----------------------------------------------------- */

PyObject *hak_py_unfinished(PyObject *objects)
{
    PyObject *found = PyList_New(0);

    for (Py_ssize_t i = 0; found != NULL && i < PyList_GET_SIZE(objects); i++) {
        PyObject *op = PyList_GET_ITEM(objects, i);

        if (Py_TYPE(op)->tp_finalize != NULL && !PyObject_GC_IsFinalized(op) &&
            !PyGen_Check(op) && !PyCoro_CheckExact(op) &&
            !PyAsyncGen_CheckExact(op) && PyList_Append(found, op) != 0) {
            Py_CLEAR(found);
        }
    }
    return found;
}
