/*
 * hak_lua_inside.c - what a profile reads of the structures of Lua 5.4: the beginnings
 * of five of them, the same in Lua 5.4.0 to 5.4.8. Other versions: other/inside.c.
 *
 * Which line. Lua notes where a function is before whatever may raise an error, and so
 * before it allocates, with one exception: a table constructor (OP_NEWTABLE). There the
 * note is of an earlier instruction. But L->top then names the constructor's register,
 * and the instruction is the next OP_NEWTABLE with this register that can be reached
 * from the noted one: find_constructor. (A count hook for the next instruction, the
 * other way, names the line after; and after `return {...}` the wrong function.)
 *
 * Tested by tests/lua/profile.c.
 */
#include <string.h>

#include "hak_lua_heap.h"

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

bool hak_lua_inside_is_moving(const struct hak_lua_heap *lua, lua_State *L,
                              const lua_Debug *last)
{
    uintptr_t function = (uintptr_t)call_of(last)->function;

    (void)L;
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

const void *hak_lua_inside_note(const struct hak_lua_heap *lua, lua_State *L,
                                const lua_Debug *last)
{
    struct call *call = call_of(last);
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

void hak_lua_inside_put_back(const lua_Debug *last, const void *noted)
{
    call_of(last)->at = noted;
}

/* ---- functions in C --------------------------------------------------------- */

void *hak_lua_inside_c_function(const lua_Debug *of)
{
    const struct call *call = call_of(of);
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
