/*
 * hak_py_frames.h - which Python code is running on the calling thread.
 *
 * Asked from within the allocator, at any point where CPython may allocate: so
 * no object is made, no reference is taken, nothing is locked or raised. The walk
 * reads what tracemalloc reads at every request, in the interpreter's own
 * structs, which differ from version to version:
 *
 *     3.9, 3.10   state->frame, PyFrameObjects linked by f_back
 *     3.11, 3.12  state->cframe->current_frame, _PyInterpreterFrames
 *     3.13, 3.14  state->current_frame, the same
 *
 * From 3.11 on frames that are not yet (or never) Python's are passed over, as
 * the interpreter itself does: those before their first RESUME, and C's shims.
 *
 * Whose frames. Only what the calling thread runs stands still, so its own state
 * is looked for, and used if it is attached. From 3.12 on that is a thread-local
 * variable. Before, the one state that is attached is the process's, and may be
 * another thread's, which may be gone in the next moment: it is ours if it is the
 * one that this thread has, or if the caller must hold the GIL; and bears our name.
 *
 * Lines are worked out at once: PyCode_Addr2Line reads the code object's table
 * and allocates nothing, in no version, at some 100 ns a frame. To do it later
 * would take a reference on the code object, whose last DECREF may run anything.
 */
#ifndef HAK_PY_FRAMES_H
#define HAK_PY_FRAMES_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdbool.h>

struct hak_py_frame {
    PyCodeObject *code; /* borrowed, until the caller goes back to Python */
    int line;           /* 0: unknown */
};

/*
 * The frames that run on the calling thread, innermost first, at most `most`; how
 * many: 0 if it runs no Python, or does not hold its GIL. `has_gil`: the caller
 * is bound to hold it, as who asks for mem and obj is.
 */
unsigned hak_py_walk(bool has_gil, struct hak_py_frame *frames, unsigned most);

/* Whether that agrees with what Python says of its caller's frames: it holds
 * the GIL. Lest an interpreter has other structs than its headers say. */
bool hak_py_walk_works(void);

#endif /* HAK_PY_FRAMES_H */
