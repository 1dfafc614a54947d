/*
 * toy.c - the toy runtime: see toy.h.
 */
#include "toy.h"

#include <stdlib.h>
#include <string.h>

enum kind { NUMBER, TEXT, LIST };

struct value {
    enum kind kind;
    size_t size; /* a text's bytes, a list's values */
    size_t room; /* of `list` */
    union {
        long number;
        char *text;
        struct value *list;
    };
};

struct toy {
    toy_alloc alloc;
    void *ud;
    struct value stack; /* a list */
};

static void *resize(struct toy *toy, void *p, size_t osize, size_t nsize)
{
    return toy->alloc(toy->ud, p, osize, nsize);
}

static void drop(struct toy *toy, struct value *value)
{
    if (value->kind == TEXT) {
        resize(toy, value->text, value->size, 0);
    } else if (value->kind == LIST) {
        while (value->size > 0) {
            drop(toy, &value->list[--value->size]);
        }
        if (value->list != NULL) {
            resize(toy, value->list, value->room * sizeof(struct value), 0);
        }
    }
}

/* Appends a value to a list, which then owns it. */
static enum toy_status append(struct toy *toy, struct value *to,
                              struct value value)
{
    if (to->size == to->room) {
        size_t room = to->room + to->room / 2 + 4;
        struct value *list = resize(toy, to->list, to->room * sizeof(*list),
                                    room * sizeof(*list));

        if (list == NULL) {
            drop(toy, &value);
            return TOY_NO_MEMORY;
        }
        to->list = list;
        to->room = room;
    }
    to->list[to->size++] = value;
    return TOY_OK;
}

/* Makes a text of two parts; false: no memory. */
static int join(struct toy *toy, struct value *to, const char *a, size_t na,
                const char *b, size_t nb)
{
    *to = (struct value){.kind = TEXT, .size = na + nb};
    to->text = resize(toy, NULL, 0, na + nb);
    if (to->text == NULL) {
        return 0;
    }
    memcpy(to->text, a, na);
    memcpy(to->text + na, b, nb);
    return 1;
}

/* Appends a copy of a value to a list. */
static enum toy_status append_copy(struct toy *toy, struct value *to,
                                   const struct value *from)
{
    struct value copy = *from;
    enum toy_status status = TOY_OK;

    if (from->kind == TEXT &&
        !join(toy, &copy, from->text, from->size, "", 0)) {
        return TOY_NO_MEMORY;
    }
    if (from->kind == LIST) {
        copy = (struct value){.kind = LIST};
        for (size_t i = 0; status == TOY_OK && i < from->size; i++) {
            status = append_copy(toy, &copy, &from->list[i]);
        }
    }
    if (status != TOY_OK) {
        drop(toy, &copy);
        return status;
    }
    return append(toy, to, copy);
}

/* + and cat: combine the two values on top into one. */
static enum toy_status combine(struct toy *toy, enum kind kind)
{
    struct value sum = {.kind = NUMBER}, *top, *below;

    if (toy->stack.size < 2) {
        return TOY_WRONG;
    }
    top = &toy->stack.list[toy->stack.size - 1];
    below = top - 1;
    if (top->kind != kind || below->kind != kind) {
        return TOY_WRONG;
    }
    if (kind == NUMBER) {
        sum.number = below->number + top->number;
    } else if (!join(toy, &sum, below->text, below->size, top->text,
                     top->size)) {
        return TOY_NO_MEMORY;
    }
    drop(toy, top);
    drop(toy, below);
    *below = sum;
    toy->stack.size--;
    return TOY_OK;
}

static enum toy_status word(struct toy *toy, const char *at, size_t n)
{
    struct value *stack = &toy->stack, value = {.kind = NUMBER};
    struct value *top = stack->size > 0 ? &stack->list[stack->size - 1] : NULL;

    if (*at == '\'') {
        if (n < 2) {
            return TOY_WRONG;
        }
        return join(toy, &value, at + 1, n - 1, "", 0)
                   ? append(toy, stack, value)
                   : TOY_NO_MEMORY;
    }
    if (*at >= '0' && *at <= '9') {
        value.number = strtol(at, NULL, 10);
        return append(toy, stack, value);
    }
    if (n == 4 && memcmp(at, "list", 4) == 0) {
        value.kind = LIST;
        return append(toy, stack, value);
    }
    if (n == 1 && *at == '+') {
        return combine(toy, NUMBER);
    }
    if (n == 3 && memcmp(at, "cat", 3) == 0) {
        return combine(toy, TEXT);
    }
    if (n == 3 && memcmp(at, "dup", 3) == 0 && top != NULL) {
        value = *top; /* the stack may move */
        return append_copy(toy, stack, &value);
    }
    if (n == 3 && memcmp(at, "add", 3) == 0 && stack->size > 1 &&
        top[-1].kind == LIST) {
        stack->size--;
        return append(toy, top - 1, *top);
    }
    if (n == 4 && memcmp(at, "drop", 4) == 0 && top != NULL) {
        drop(toy, top);
        stack->size--;
        return TOY_OK;
    }
    return TOY_WRONG;
}

/* Runs the code from *at to its end or closing brace `times` times. */
static enum toy_status block(struct toy *toy, const char **at, long times)
{
    const char *from = *at, *end = NULL;
    enum toy_status status = TOY_OK;

    for (long i = 0; status == TOY_OK && i < times; i++) {
        for (const char *p = from; status == TOY_OK; end = p) {
            size_t n;

            p += strspn(p, " ");
            n = strcspn(p, " ");
            if (n == 0 || *p == '}') {
                end = p + n;
                break;
            }
            if (*p == '{') {
                struct value *stack = &toy->stack;

                if (stack->size == 0 ||
                    stack->list[stack->size - 1].kind != NUMBER ||
                    stack->list[stack->size - 1].number < 1) {
                    return TOY_WRONG;
                }
                p += n;
                status = block(toy, &p, stack->list[--stack->size].number);
            } else {
                status = word(toy, p, n);
                p += n;
            }
        }
    }
    *at = end;
    return status;
}

/* ---- toy.h ------------------------------------------------------------------ */

struct toy *toy_new(toy_alloc alloc, void *ud)
{
    struct toy *toy = alloc(ud, NULL, 0, sizeof(*toy));

    if (toy != NULL) {
        *toy = (struct toy){.alloc = alloc, .ud = ud, .stack = {.kind = LIST}};
    }
    return toy;
}

void toy_free(struct toy *toy)
{
    drop(toy, &toy->stack);
    toy->alloc(toy->ud, toy, sizeof(*toy), 0);
}

enum toy_status toy_run(struct toy *toy, const char *program)
{
    return block(toy, &program, 1);
}

size_t toy_depth(const struct toy *toy)
{
    return toy->stack.size;
}

size_t toy_length(const struct toy *toy)
{
    return toy->stack.list[toy->stack.size - 1].size;
}

long toy_number(const struct toy *toy)
{
    return toy->stack.list[toy->stack.size - 1].number;
}

toy_alloc toy_get_alloc(const struct toy *toy, void **ud)
{
    *ud = toy->ud;
    return toy->alloc;
}

void toy_set_alloc(struct toy *toy, toy_alloc alloc, void *ud)
{
    toy->alloc = alloc;
    toy->ud = ud;
}
