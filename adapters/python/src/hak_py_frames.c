/*
 * hak_py_frames.c - the walk over Python's frames: see hak_py_frames.h. With
 * hak_py_gil.c the one file that needs the interpreter's own headers.
 */
#define Py_BUILD_CORE 1
#define PY_SSIZE_T_CLEAN
#include <Python.h>

/* 3.15's have not been looked at: no frames there. */
#if PY_VERSION_HEX >= 0x030f0000 || defined(Py_GIL_DISABLED)
#define KIND 0
#elif PY_VERSION_HEX >= 0x030b0000
#define KIND 2
#if PY_VERSION_HEX >= 0x030e0000
#include <internal/pycore_interpframe.h>
#else
#include <internal/pycore_frame.h>
#endif
#else
#define KIND 1
#include <frameobject.h>
#endif
#undef Py_BUILD_CORE

#include "hak_py_frames.h"

/* ---- whose frames --------------------------------------------------------------- */

#if KIND != 0

#if PY_VERSION_HEX >= 0x030d0000

static PyThreadState *own_state(bool has_gil)
{
    (void)has_gil;
    return PyThreadState_GetUnchecked();
}

#elif PY_VERSION_HEX >= 0x030c0000

static PyThreadState *own_state(bool has_gil)
{
    (void)has_gil;
    return _PyThreadState_UncheckedGet();
}

#else

/* The state that holds the GIL, if it is this thread's: it is compared before it
 * is looked into. A thread of another interpreter has a second one. */
static PyThreadState *own_state(bool has_gil)
{
    PyThreadState *current = _PyThreadState_UncheckedGet();

    if (current == NULL ||
        (!has_gil && current != PyGILState_GetThisThreadState()) ||
        current->thread_id != PyThread_get_thread_ident()) {
        return NULL;
    }
    return current;
}

#endif

/* A line as it is shown: code that the compiler made up has none. */
static int shown_line(const PyCodeObject *code, int line)
{
    return line > 0 ? line : code->co_firstlineno;
}

#endif

/* ---- the walk ------------------------------------------------------------------ */

#if KIND == 2

static _PyInterpreterFrame *first_frame(const PyThreadState *state)
{
#if PY_VERSION_HEX >= 0x030d0000
    return state->current_frame;
#else
    return state->cframe != NULL ? state->cframe->current_frame : NULL;
#endif
}

/* Its code; NULL: it is a shim, or not yet begun. */
static PyCodeObject *frame_code(_PyInterpreterFrame *frame)
{
#if PY_VERSION_HEX >= 0x030e0000
    return !PyStackRef_IsNull(frame->f_executable) &&
                   !_PyFrame_IsIncomplete(frame)
               ? _PyFrame_GetCode(frame)
               : NULL;
#elif PY_VERSION_HEX >= 0x030d0000
    return frame->f_executable != NULL && !_PyFrame_IsIncomplete(frame)
               ? _PyFrame_GetCode(frame)
               : NULL;
#else
    return frame->f_code != NULL && !_PyFrame_IsIncomplete(frame)
               ? frame->f_code
               : NULL;
#endif
}

static int frame_line(const _PyInterpreterFrame *frame, PyCodeObject *code)
{
#if PY_VERSION_HEX >= 0x030d0000
    const _Py_CODEUNIT *at = frame->instr_ptr;
#else
    const _Py_CODEUNIT *at = frame->prev_instr;
#endif

    return PyCode_Addr2Line(code, (int)(at - _PyCode_CODE(code)) *
                                      (int)sizeof(_Py_CODEUNIT));
}

unsigned hak_py_walk(bool has_gil, struct hak_py_frame *frames, unsigned most)
{
    const PyThreadState *state = own_state(has_gil);
    _PyInterpreterFrame *frame = state != NULL ? first_frame(state) : NULL;
    unsigned n = 0;

    for (; frame != NULL && n < most; frame = frame->previous) {
        PyCodeObject *code = frame_code(frame);

        if (code != NULL) {
            frames[n].code = code;
            frames[n].line = shown_line(code, frame_line(frame, code));
            n++;
        }
    }
    return n;
}

#elif KIND == 1

unsigned hak_py_walk(bool has_gil, struct hak_py_frame *frames, unsigned most)
{
    const PyThreadState *state = own_state(has_gil);
    PyFrameObject *frame = state != NULL ? state->frame : NULL;
    unsigned n = 0;

    for (; frame != NULL && n < most; frame = frame->f_back) {
        PyCodeObject *code = frame->f_code;

        frames[n].code = code;
        frames[n].line = shown_line(code, PyFrame_GetLineNumber(frame));
        n++;
    }
    return n;
}

#else

unsigned hak_py_walk(bool has_gil, struct hak_py_frame *frames, unsigned most)
{
    (void)has_gil;
    (void)frames;
    (void)most;
    return 0;
}

#endif

bool hak_py_walk_works(void)
{
    PyFrameObject *frame = PyEval_GetFrame();
    struct hak_py_frame found;
    PyCodeObject *code;
    bool same;

    if (frame == NULL || hak_py_walk(true, &found, 1) != 1) {
        return false;
    }
    code = PyFrame_GetCode(frame);
    same = code == found.code && PyFrame_GetLineNumber(frame) == found.line;
    Py_DECREF(code);
    return same;
}
