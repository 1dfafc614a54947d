/*
 * hak_lua_profile.c - the frames of a sample: which line of Lua asks for memory.
 *
 * Called inside lua_Alloc, of blocks that a profile samples (core's profile/). Lua's
 * public API alone says what runs: lua_getstack and lua_getinfo "Sln" read the list of
 * calls, the functions' prototypes and their code, and allocate nothing.
 *
 * When they may be called. Whatever Lua allocates, it links the block into its own
 * structures after it has it, so that the calls that lua_getstack follows are whole:
 *   - a CallInfo (luaE_extendCI) is in the list when it is made; until then the caller
 *     is the last call;
 *   - a prototype that the parser builds is not called yet: what runs is `load`, or
 *     the C function that calls lua_load;
 *   - a coroutine that is being made has no last call (NULL, and that is what
 *     lua_getstack says), one whose error unwinds has
 *     its last call set first (luaD_pcall), and a state that is closed makes nothing
 *     but in finalizers, which are calls like any other;
 *   - the collector moves nothing but stacks that it shrinks, and runs no Lua inside
 *     an allocation.
 * A thread's stack is the exception: from 5.4.6 on calls have distances in place of
 * pointers while it is reallocated, and before, where the pages of a large one move,
 * pointers to where it was. So a thread is not walked whose last call's function is,
 * or with a distance may be, in the block that is resized (hak_lua_inside_is_moving);
 * the frame is then STACK_FRAME. That, and which line a table constructor is in, is all
 * that is read of Lua's structures: hak_lua_inside.c, other/inside.c.
 *
 * LuaJIT's compiled code keeps its calls to itself, so that a walk from within could
 * follow what is no longer there, and libgcc's unwinder aborts where it meets such code.
 * Samples of LuaJIT's states have one frame, JIT_FRAME.
 *
 * Which thread. lua_Alloc is not told. The main thread is known; who resumes another
 * one is a C function that has it as an argument or an upvalue (coroutine.resume,
 * coroutine.wrap's, most hosts'), and a thread with calls whose status is LUA_OK runs
 * or resumes another one itself. hak_lua_resume is for hosts whose C code outside of
 * any Lua function resumes. So nothing is kept that may dangle. What nobody can know is
 * told of the thread that resumes.
 *
 * States of ud NULL, and those made by lua_newstate on a hak_lua_heap_new, have no main
 * thread that is known: their samples have C frames alone.
 *
 * Tested by tests/lua/profile.c.
 */
#include <stdio.h>
#include <string.h>

#include "hak_lua_heap.h"

/* The frame of a stack that is being resized. */
#define STACK_FRAME "[stack of a Lua thread]"

#define JIT_FRAME "LuaJIT"

/* So many threads, each resumed by the one before, are told, the last ones. */
#define THREADS 32u

#define CALLS_MOST 256u /* LUAI_MAXCCALLS is 200 */

/* Arguments of a C function that are looked at for a thread. */
#define ARGUMENTS 3

/* ---- one thread's frames ---------------------------------------------------- */

static uint32_t name_of(const char *text)
{
    return haki_profile_name(text, strlen(text));
}

/* Frames of functions in C: by what called them; by their addresses, which the core
 * finds names for; or by neither. */
static void fill_c_frame(const lua_Debug *call, struct hak_frame *frame)
{
    void *function = hak_lua_inside_c_function(call);

    if (call->name == NULL && function != NULL) {
        haki_profile_frame_of_c(frame, function);
        return;
    }
    memset(frame, 0, sizeof(*frame));
    frame->function = name_of(call->name != NULL ? call->name : "C function");
    frame->file = name_of(call->short_src);
}

static void fill_frame(const lua_Debug *call, struct hak_frame *frame)
{
    char text[LUA_IDSIZE + 40];

    if (*call->what == 'C') {
        fill_c_frame(call, frame);
        return;
    }
    if (*call->what == 'm') {
        snprintf(text, sizeof(text), "main chunk");
    } else if (call->name != NULL) {
        snprintf(text, sizeof(text), "%.*s", LUA_IDSIZE, call->name);
    } else {
        snprintf(text, sizeof(text), "function <%s:%d>", call->short_src,
                 call->linedefined);
    }
    frame->function = name_of(text);
    frame->file = name_of(call->short_src);
    frame->line = call->currentline > 0 ? (uint32_t)call->currentline : 0;
    frame->token = 0;
}

/* The frames of a thread that is not moving, leaf first; how many. */
static unsigned thread_frames(const struct hak_lua_heap *lua, lua_State *L,
                              struct hak_frame *frames, unsigned most)
{
    const void *noted = NULL;
    lua_Debug call;
    unsigned n = 0;

    for (; n < most && lua_getstack(L, (int)n, &call) == 1; n++) {
        lua_getinfo(L, "S", &call);
        if (n == 0 && *call.what != 'C') {
            noted = hak_lua_inside_note(lua, L, &call);
        }
        lua_getinfo(L, "ln", &call);
        if (noted != NULL) {
            hak_lua_inside_put_back(&call, noted);
            noted = NULL;
        }
        fill_frame(&call, &frames[n]);
    }
    return n;
}

/* ---- which thread runs ------------------------------------------------------- */

struct chain {
    lua_State *thread[THREADS]; /* a ring */
    unsigned count;
    bool moving; /* the last one's stack is being resized */
};

/* Whether L is in the chain: those do not run, nor have they ended. */
static bool is_in(const struct chain *chain, const lua_State *L)
{
    for (unsigned i = 0; i < chain->count && i < THREADS; i++) {
        if (chain->thread[i] == L) {
            return true;
        }
    }
    return false;
}

/* Pops a value; the thread that it is, if that runs or resumes another one. */
static lua_State *pop_running(lua_State *L, const struct chain *chain)
{
    lua_State *thread = lua_tothread(L, -1);
    lua_Debug call;

    lua_pop(L, 1);
    return thread != NULL && !is_in(chain, thread) &&
                   lua_status(thread) == LUA_OK &&
                   lua_getstack(thread, 0, &call) == 1 &&
                   hak_lua_has_call(&call)
               ? thread
               : NULL;
}

/* The thread that L's last call, a C function, has resumed, or NULL. */
static lua_State *resumed_by_call(lua_State *L, lua_Debug *last,
                                  const struct chain *chain)
{
    lua_State *found = NULL;

    for (int i = 1;
         found == NULL && i <= ARGUMENTS && lua_getlocal(L, last, i) != NULL;
         i++) {
        found = pop_running(L, chain);
    }
    if (found == NULL) {
        lua_getinfo(L, "f", last);
        if (lua_getupvalue(L, -1, 1) != NULL) {
            found = pop_running(L, chain);
        }
        lua_pop(L, 1);
    }
    return found;
}

static lua_State *resumed_by_host(const struct hak_lua_heap *lua,
                                  const lua_State *L, const struct chain *chain)
{
    for (struct hak_lua_run *run = lua->run; run != NULL; run = run->outer) {
        if (run->from == L && !is_in(chain, run->thread)) {
            return run->thread;
        }
    }
    return NULL;
}

/* The main thread, the one that it has resumed, and so on to the one that runs. */
static void find_chain(const struct hak_lua_heap *lua, lua_State *main,
                       struct chain *chain)
{
    lua_State *next;
    lua_Debug last;

    for (lua_State *L = main; L != NULL && chain->count < CALLS_MOST;
         L = next) {
        chain->thread[chain->count++ % THREADS] = L;
        next = resumed_by_host(lua, L, chain);
        if (lua_getstack(L, 0, &last) == 0) {
            continue;
        }
        if (hak_lua_inside_is_moving(lua, L, &last)) {
            chain->moving = true;
            return;
        }
        lua_getinfo(L, "S", &last);
        if (next == NULL && *last.what == 'C') {
            next = resumed_by_call(L, &last, chain);
        }
    }
}

/* haki_frames_fn */
static unsigned lua_frames(struct hak_heap *heap, struct hak_frame *frames,
                           unsigned most, size_t *below)
{
    const struct hak_lua_heap *lua = haki_embed_extra(heap);
    lua_State *main = hak_lua_main(lua);
    struct chain chain = {.count = 0};
    unsigned n = 0, left;

    if (hak_lua_is_jit()) {
        memset(frames, 0, sizeof(*frames));
        frames->function = name_of(JIT_FRAME);
        *below = 0;
        return 1;
    }
    if (main == NULL) {
        return 0;
    }
    find_chain(lua, main, &chain);
    left = (unsigned)haki_min(chain.count, THREADS);
    if (chain.moving) {
        memset(&frames[n], 0, sizeof(frames[n]));
        frames[n++].function = name_of(STACK_FRAME);
        chain.count--;
        left--;
    }
    for (; left > 0; left--) {
        n += thread_frames(lua, chain.thread[--chain.count % THREADS],
                           frames + n, most - n);
    }
    *below = n != 0 ? 0 : *below;
    return n;
}

void hak_lua_profile_begin(struct hak_lua_heap *lua)
{
    haki_embed_set_frames(hak_lua_core(lua), lua_frames);
}

int hak_lua_resume(lua_State *L, lua_State *from, int nargs, int *nresults)
{
    struct hak_lua_heap *lua = hak_lua_heap_of(L);
    struct hak_lua_run run;
    int status;

    if (lua == NULL) {
        return hak_lua_resume_any(L, from, nargs, nresults);
    }
    run.thread = L;
    run.from = from != NULL ? from : hak_lua_main(lua);
    run.outer = lua->run;
    lua->run = &run;
    status = hak_lua_resume_any(L, from, nargs, nresults);
    lua->run = run.outer;
    return status;
}
