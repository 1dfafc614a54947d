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
 * or with a distance may be, in the block that is resized (is_moving); the frame is
 * then STACK_FRAME. This, and what is said below of table constructors, are all that is
 * read of Lua's structures: the beginnings of five of them, the same in Lua 5.4.0 to
 * 5.4.8.
 *
 * Which line. Lua notes where a function is before whatever may raise an error, and so
 * before it allocates, with one exception: a table constructor (OP_NEWTABLE). There the
 * note is of an earlier instruction. But L->top then names the constructor's register,
 * and the instruction is the next OP_NEWTABLE with this register that can be reached
 * from the noted one: find_constructor. (A count hook for the next instruction, the
 * other way, names the line after; and after `return {...}` the wrong function.)
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

/* So many threads, each resumed by the one before, are told, the last ones. */
#define THREADS 32u

#define CALLS_MOST 256u /* LUAI_MAXCCALLS is 200 */

/* Arguments of a C function that are looked at for a thread. */
#define ARGUMENTS 3

/* ---- Lua's structures: their beginnings ----------------------------------- */

struct call {
    char *function; /* its place on the stack; the registers follow */
    char *top;
    void *previous, *next;
    const uint32_t
        *at; /* of a Lua function: the instruction after the noted one */
};

struct thread {
    void *next;
    uint8_t bytes[8];
    char *top;
};

struct closure {
    void *next;
    uint8_t tag, marked, upvalues;
    void *gray;
    const struct prototype *prototype; /* of a C function: its address */
};

struct prototype {
    void *next;
    uint8_t tag, marked, parameters, is_vararg, registers;
    uint32_t upvalues, constants, count;
    uint32_t numbers[6];
    void *k;
    const uint32_t *code;
};

enum {
    VALUE = 16,
    TAG_LUA_FUNCTION = LUA_TFUNCTION,
    TAG_LIGHT_C_FUNCTION = LUA_TFUNCTION + 16,
    TAG_C_FUNCTION = LUA_TFUNCTION + 32,
    TAG_PROTOTYPE = LUA_TFUNCTION + 4
};

_Static_assert(LUA_TUSERDATA + 3 == TAG_PROTOTYPE,
               "LUA_TPROTO follows upvalues");

static struct call *call_of(const lua_Debug *call)
{
    return (struct call *)(void *)call->i_ci;
}

/* Whether the block that is being resized is, or may be, the thread's stack. */
static bool is_moving(const struct hak_lua_heap *lua, const lua_Debug *last)
{
    uintptr_t function = (uintptr_t)call_of(last)->function;

    return lua->asked != NULL &&
           (function < lua->asked_size ||
            function - (uintptr_t)lua->asked < lua->asked_size);
}

/* ---- table constructors ------------------------------------------------------ */

/* Opcodes, of all 5.4. */
enum {
    OP_LOADKX = 4,
    OP_LFALSESKIP = 6,
    OP_NEWTABLE = 19,
    OP_ADDI = 21,
    OP_SHR = 45,
    OP_JMP = 56,
    OP_EQ = 57,
    OP_TESTSET = 67,
    OP_RETURN = 70,
    OP_RETURN1 = 72,
    OP_FORLOOP = 73,
    OP_FORPREP = 74,
    OP_TFORPREP = 75,
    OP_TFORLOOP = 77,
    OP_SETLIST = 78,
    OPCODES = 83
};

static unsigned opcode(uint32_t i)
{
    return i & 0x7f;
}

static unsigned register_a(uint32_t i)
{
    return i >> 7 & 0xff;
}

static int jump(uint32_t i)
{
    return (int)(i >> 7) - 0xffffff;
}

static int loop(uint32_t i)
{
    return (int)(i >> 15);
}

/* Where an instruction leads: one or two places, from the next one on; how many. */
static int successors(uint32_t i, int to[2])
{
    unsigned op = opcode(i);

    to[0] = 0;
    to[1] = 1;
    if (op >= OP_RETURN && op <= OP_RETURN1) {
        return 0;
    }
    if ((op >= OP_ADDI && op <= OP_SHR) || (op >= OP_EQ && op <= OP_TESTSET)) {
        return 2;
    }
    switch (op) {
    case OP_LOADKX:
    case OP_LFALSESKIP:
    case OP_NEWTABLE: to[0] = 1; return 1;
    case OP_JMP: to[0] = jump(i); return 1;
    case OP_TFORPREP: to[0] = loop(i); return 1;
    case OP_SETLIST: to[0] = (int)(i >> 15 & 1); return 1;
    case OP_FORPREP: to[1] = loop(i) + 1; return 2;
    case OP_FORLOOP:
    case OP_TFORLOOP: to[1] = -loop(i); return 2;
    default: return 1;
    }
}

/* So many instructions are looked at. */
#define STEPS 512u

/*
 * The nearest constructor that makes a table in register `a`, from the instruction
 * noted at `from` on; -1: none.
 */
static int find_constructor(const struct prototype *p, int from, unsigned a)
{
    uint16_t queue[STEPS];
    uint64_t seen[STEPS / 64] = {0}; /* by distance, modulo: few are lost */
    unsigned first = 0, last = 0;

    for (int at = from;; at = queue[first++]) {
        int to[2] = {0, 0};
        int n = at < 0 ? 1 : successors(p->code[at], to);

        for (int i = 0; i < n && last < STEPS; i++) {
            int next = at + 1 + to[i];
            unsigned bit = (unsigned)(next - from) % STEPS;

            if (next < 0 || (uint32_t)next >= p->count || next > UINT16_MAX ||
                (seen[bit / 64] >> bit % 64 & 1) != 0) {
                continue;
            }
            seen[bit / 64] |= UINT64_C(1) << bit % 64;
            if (opcode(p->code[next]) == OP_NEWTABLE &&
                register_a(p->code[next]) == a) {
                return next;
            }
            queue[last++] = (uint16_t)next;
        }
        if (first == last) {
            return -1;
        }
    }
}

/* The prototype of a call of a Lua function; NULL: that is not what is there. */
static const struct prototype *prototype_of(const struct call *call)
{
    const struct closure *closure;

    memcpy(&closure, call->function, sizeof(closure));
    if (closure == NULL || closure->tag != TAG_LUA_FUNCTION ||
        closure->prototype == NULL ||
        closure->prototype->tag != TAG_PROTOTYPE) {
        return NULL;
    }
    return closure->prototype;
}

/*
 * If a constructor of the last call, a Lua function, makes its table, notes there where
 * the call is; what was noted, or NULL.
 */
static const uint32_t *note_constructor(const struct hak_lua_heap *lua,
                                        lua_State *L, struct call *call)
{
    const struct thread *thread = (const void *)L;
    const struct prototype *p = prototype_of(call);
    const uint32_t *before = call->at;
    ptrdiff_t at, registers = (thread->top - call->function) / VALUE - 1;
    int found;

    if (p == NULL || lua->asked != NULL || registers < 1 ||
        registers > p->registers ||
        (lua->asked_size != LUA_TTABLE && thread->top == call->top)) {
        return NULL;
    }
    at = before - p->code;
    if (at < 0 || at > p->count) {
        return NULL;
    }
    found = find_constructor(p, (int)at - 1, (unsigned)registers - 1);
    if (found < 0) {
        return NULL;
    }
    call->at = p->code + found + 1;
    return before;
}

/* ---- one thread's frames ---------------------------------------------------- */

static uint32_t name_of(const char *text)
{
    return haki_profile_name(text, strlen(text));
}

/* The address of a C function; NULL: that is not what is there. */
static void *c_function(const struct call *call)
{
    const struct closure *closure;
    void *function;
    uint8_t tag;

    memcpy(&function, call->function, sizeof(function));
    memcpy(&tag, call->function + sizeof(function), sizeof(tag));
    if (tag == TAG_LIGHT_C_FUNCTION) {
        return function;
    }
    closure = function;
    return closure != NULL && closure->tag == TAG_C_FUNCTION
               ? (void *)(uintptr_t)closure->prototype
               : NULL;
}

/* Frames of functions in C: by what called them; by their addresses, which the core
 * finds names for; or by neither. */
static void fill_c_frame(const lua_Debug *call, struct hak_frame *frame)
{
    void *function = c_function(call_of(call));

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
    const uint32_t *noted = NULL;
    lua_Debug call;
    unsigned n = 0;

    for (; n < most && lua_getstack(L, (int)n, &call) == 1; n++) {
        lua_getinfo(L, "S", &call);
        if (n == 0 && *call.what != 'C') {
            noted = note_constructor(lua, L, call_of(&call));
        }
        lua_getinfo(L, "ln", &call);
        if (noted != NULL) {
            call_of(&call)->at = noted;
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
                   lua_getstack(thread, 0, &call) == 1 && call.i_ci != NULL
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
        if (is_moving(lua, &last)) {
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
        return lua_resume(L, from, nargs, nresults);
    }
    run.thread = L;
    run.from = from != NULL ? from : hak_lua_main(lua);
    run.outer = lua->run;
    lua->run = &run;
    status = lua_resume(L, from, nargs, nresults);
    lua->run = run.outer;
    return status;
}
