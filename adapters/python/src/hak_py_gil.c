/*
 * hak_py_gil.c - whether somebody holds the GIL.
 *
 * CPython has no call that tells this without waiting, so this file reads the
 * word itself, using the interpreter's internal headers; it is the only file of
 * the adapter that needs them. The word is trusted only after it has been seen
 * to follow the GIL.
 */
#define Py_BUILD_CORE 1
#define PY_SSIZE_T_CLEAN
#include <Python.h>

/* 3.15's layout is not known here, so the GIL's heap is not used there. */
#if PY_VERSION_HEX < 0x030f0000 && !defined(Py_GIL_DISABLED)
#include <internal/pycore_interp.h>
#include <internal/pycore_runtime.h>
#define IS_KNOWN 1
#else
#define IS_KNOWN 0
#endif
#undef Py_BUILD_CORE

#include "hak_py.h"

#if IS_KNOWN

/* The main interpreter's; in static storage, so it exists even after the
 * interpreter's end. */
static const struct _gil_runtime_state *gil;

static const struct _gil_runtime_state *place(void)
{
#if PY_VERSION_HEX >= 0x030c0000
    PyInterpreterState *main = PyInterpreterState_Main();

    return main != NULL ? main->ceval.gil : NULL;
#else
    return &_PyRuntime.ceval.gil;
#endif
}

/* 0: nobody holds it, 1: somebody does, -1: there is no GIL. The field's type
 * differs between versions, but it is always an int. */
static int locked(const struct _gil_runtime_state *it)
{
    return __atomic_load_n((const int *)(const void *)&it->locked,
                           __ATOMIC_SEQ_CST);
}

static bool is_mine(const struct _gil_runtime_state *it,
                    const PyThreadState *state)
{
    const uintptr_t *holder = (const void *)&it->last_holder;

    return locked(it) == 1 &&
           __atomic_load_n(holder, __ATOMIC_SEQ_CST) == (uintptr_t)state;
}

bool hak_py_gil_find(void)
{
    const struct _gil_runtime_state *it = place();
    PyThreadState *state = PyThreadState_Get();
    bool good = it != NULL && is_mine(it, state);

    if (good) {
        PyEval_SaveThread();
        good = !is_mine(it, state);
        PyEval_RestoreThread(state);
        good = good && is_mine(it, state);
    }
    __atomic_store_n(&gil, good ? it : NULL, __ATOMIC_RELEASE);
    return good;
}

bool hak_py_gil_is_held(void)
{
    const struct _gil_runtime_state *it =
        __atomic_load_n(&gil, __ATOMIC_ACQUIRE);

    return it == NULL || locked(it) != 0;
}

#else

bool hak_py_gil_find(void)
{
    return false;
}

bool hak_py_gil_is_held(void)
{
    return true;
}

#endif
