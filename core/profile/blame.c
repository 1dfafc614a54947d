/*
 * blame.c - the report of a guarded block's misuse: see blame.h.
 *
 * Tested by tests/unit/profile/guarded.c and fault.c.
 */
#include "profile/blame.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "base/msg.h"
#include "os/os.h"
#include "profile/records.h"
#include "profile/symbols.h"

#define BLAME_TURNS 10000 /* so often does a second thread look */

/* One report's: not on the stack, which may be a signal handler's small one. */
static struct {
    atomic_bool taken;
    char text[4096];
    size_t used;
    struct hak_symbols symbols;
    struct hak_stack_words words;
} blame_desk;

void haki_blame_begin(void)
{
    haki_symbols_prepare();
}

/* ---- text ----------------------------------------------------------------------- */

static void blame_flush(void)
{
    haki_msg_write(haki_msg_fd(), blame_desk.text, blame_desk.used);
    blame_desk.used = 0;
}

static void blame_put(const char *text)
{
    size_t n = strlen(text);

    n = haki_min(n, sizeof(blame_desk.text) / 4);
    if (n > sizeof(blame_desk.text) - blame_desk.used) {
        blame_flush();
    }
    memcpy(blame_desk.text + blame_desk.used, text, n);
    blame_desk.used += n;
}

static void blame_number(uint64_t n, unsigned base)
{
    char digits[24];
    size_t at = sizeof(digits) - 1;

    digits[at] = '\0';
    do {
        digits[--at] = "0123456789abcdef"[n % base];
        n /= base;
    } while (n != 0);
    blame_put(base == 16 ? "0x" : "");
    blame_put(digits + at);
}

static void blame_address(uintptr_t p)
{
    blame_number(p, 16);
}

/* ---- stacks ---------------------------------------------------------------------- */

static void blame_begin_frame(unsigned number)
{
    blame_put(number < 10 ? "     #" : "    #");
    blame_number(number, 10);
    blame_put(" ");
}

static void blame_symbol(const struct hak_symbol *symbol, uintptr_t pc)
{
    if (symbol->name != NULL) {
        blame_put(symbol->name);
        blame_put("+");
        blame_address(pc - symbol->at);
        blame_put(" ");
    }
    blame_put("(");
    if (symbol->module != NULL) {
        blame_put(symbol->module->path);
        blame_put("+");
        blame_address(pc - symbol->module->bias);
    } else {
        blame_address(pc);
    }
    blame_put(")\n");
}

/* A frame of C; `back`: pc is where a call returns to. */
static void blame_c_frame(unsigned number, uintptr_t pc, bool back)
{
    struct hak_symbol symbol;

    haki_symbols_find(&blame_desk.symbols, pc - back, &symbol);
    blame_begin_frame(number);
    blame_symbol(&symbol, pc);
}

/* The first frame that is not our own code's. Some of that has no name of ours; and an
 * adapter's function may be further up, which runs the program. */
#define BLAME_NAMELESS 3u
static unsigned blame_first(const uintptr_t *pc, unsigned pcs)
{
    struct hak_symbol symbol;
    unsigned first = 0;

    for (unsigned i = 0; i < pcs && i < first + BLAME_NAMELESS; i++) {
        haki_symbols_find(&blame_desk.symbols, pc[i] - 1, &symbol);
        if (symbol.ours ||
            (symbol.name != NULL && strncmp(symbol.name, "haki_", 5) == 0)) {
            first = i + 1;
        }
    }
    return first;
}

static const char *blame_name(uint32_t name)
{
    const struct hak_stacks *stacks = haki_records.stacks;

    return name != 0 && name < HAK_NAMES_MOST
               ? stacks->name_text + stacks->name_at[name]
               : "?";
}

static void blame_frame(unsigned number, const struct hak_frame *frame)
{
    const void *function = haki_profile_c_of_frame(frame);
    struct hak_symbol symbol;

    blame_begin_frame(number);
    if (function != NULL) {
        haki_symbols_find(&blame_desk.symbols, (uintptr_t)function, &symbol);
        blame_symbol(&symbol, (uintptr_t)function);
        return;
    }
    blame_put(blame_name(frame->file));
    if (frame->line != 0) {
        blame_put(":");
        blame_number(frame->line, 10);
    }
    blame_put(" ");
    blame_put(blame_name(frame->function));
    blame_put("\n");
}

/* `exact`: the first pc is an instruction's, not where a call returns to. */
static void blame_stack(const uintptr_t *pc, unsigned pcs, bool exact,
                        const struct hak_frame *frames, unsigned count)
{
    unsigned number = 0;

    for (unsigned i = exact ? 0 : blame_first(pc, pcs); i < pcs; i++) {
        blame_c_frame(number++, pc[i], i > 0 || !exact);
    }
    for (unsigned i = 0; i < count; i++) {
        blame_frame(number++, &frames[i]);
    }
    if (number == 0) {
        blame_put("     (no frames are known)\n");
    }
}

static void blame_kept(const char *what, const struct hak_guarded_stack *stack)
{
    if (stack->thread != 0) {
        blame_put(what);
        blame_put(" by thread ");
        blame_number((uint32_t)stack->thread, 10);
        blame_put(":\n");
        blame_stack(stack->pc, stack->pcs, false, stack->frame, stack->frames);
        blame_flush();
    }
}

/* The calling thread's stack, from pc on if that is known. */
static void blame_here(const struct hak_guarded *slot, const char *what,
                       uintptr_t pc)
{
    struct hak_stack_words *words = &blame_desk.words;
    int32_t thread = haki_os_thread_id();
    struct hak_sampler who = {.heap = NULL};
    unsigned first = 0;

    if (thread == slot->allocated.thread || thread == slot->freed.thread) {
        who.heap = slot->heap;
        who.frames = slot->runs;
    }
    words->pcs = words->frames = 0;
    if (!haki_lock_mine(&haki_records.lock)) { /* names need it */
        haki_profile_capture(words, &who, HAK_STACK_PCS);
    }
    while (first < words->pcs && words->pc[first] != pc) {
        first++;
    }
    blame_put(what);
    blame_put(" by thread ");
    blame_number((uint32_t)thread, 10);
    blame_put(":\n");
    if (pc != 0 && first == words->pcs) { /* its table has no way there */
        words->pcs =
            words->pcs < HAK_STACK_PCS ? words->pcs : HAK_STACK_PCS - 1;
        memmove(words->pc + 1, words->pc, words->pcs * sizeof(words->pc[0]));
        words->pc[0] = pc;
        words->pcs++;
        first = 0;
    }
    first = pc != 0 ? first : 0;
    blame_stack(words->pc + first, words->pcs - first, pc != 0, words->frame,
                words->frames);
    blame_flush();
}

/* ---- reports --------------------------------------------------------------------- */

static void blame_open(void)
{
    for (int i = 0; i < BLAME_TURNS && atomic_exchange(&blame_desk.taken, true);
         i++) {
        sched_yield();
    }
    blame_desk.used = 0;
    haki_symbols_begin_safely(&blame_desk.symbols);
    blame_put("hakmem: guard: ");
}

static void blame_close(void)
{
    blame_flush();
    haki_symbols_drop(&blame_desk.symbols);
    atomic_store(&blame_desk.taken, false);
}

static void blame_bytes(size_t n)
{
    blame_number(n, 10);
    blame_put(n == 1 ? " byte" : " bytes");
}

/* "byte 8 of", "3 bytes past the end of" or "1 byte before" the block. */
static void blame_where(const struct hak_guarded *slot, uintptr_t at)
{
    if (at < slot->p) {
        blame_bytes(slot->p - at);
        blame_put(" before");
    } else if (at >= slot->p + slot->size) {
        blame_bytes(at - (slot->p + slot->size) + 1);
        blame_put(" past the end of");
    } else {
        blame_put("byte ");
        blame_number(at - slot->p, 10);
        blame_put(" of");
    }
    blame_put(" a block of ");
    blame_bytes(slot->size);
    blame_put(" at ");
    blame_address(slot->p);
    blame_put("\n");
}

static void blame_history(const struct hak_guarded *slot)
{
    blame_flush();
    blame_kept("  allocated", &slot->allocated);
    if (slot->state == HAK_GUARDED_FREED) {
        blame_kept("  freed", &slot->freed);
    }
}

void haki_blame_touch(struct hak_guarded *slot, const void *address,
                      uintptr_t pc, const char *access)
{
    if (atomic_exchange(&slot->reported, true)) {
        return;
    }
    blame_open();
    blame_put(access);
    blame_put(slot->state == HAK_GUARDED_FREED ? " after free"
              : (uintptr_t)address < slot->p   ? " before a block"
                                               : " beyond a block");
    blame_put(" at ");
    blame_address((uintptr_t)address);
    blame_put(": ");
    blame_where(slot, (uintptr_t)address);
    blame_history(slot);
    blame_here(slot, "  touched", pc);
    blame_close();
}

void haki_blame_canary(struct hak_guarded *slot, const void *at)
{
    atomic_store(&slot->reported, true);
    blame_open();
    blame_put((uintptr_t)at < slot->p
                  ? "write before a block, found at its free: "
                  : "write beyond a block, found at its free: ");
    blame_address((uintptr_t)at);
    blame_put(" was changed, ");
    blame_where(slot, (uintptr_t)at);
    blame_history(slot);
    blame_here(slot, "  freed", 0);
    blame_close();
    abort();
}

void haki_blame_pointer(struct hak_guarded *slot, const void *p,
                        const char *caller)
{
    bool freed = slot->state == HAK_GUARDED_FREED;

    atomic_store(&slot->reported, true);
    blame_open();
    blame_put(caller);
    blame_put("(");
    blame_address((uintptr_t)p);
    blame_put(freed ? (uintptr_t)p == slot->p
                          ? "): a block that is free already: "
                          : "): inside a block that is free already: "
                    : "): not the beginning of a block: ");
    blame_where(slot, (uintptr_t)p);
    blame_history(slot);
    blame_here(slot, "  used", 0);
    blame_close();
    abort();
}
