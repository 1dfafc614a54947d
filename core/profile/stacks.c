/*
 * stacks.c - the table of stacks, and of names: see stacks.h.
 *
 * Tested by tests/unit/profile/profile.c.
 */
#include "profile/stacks.h"

#include <string.h>

#include "os/lock.h"

static uint32_t stacks_hash(const uint64_t *words, size_t n)
{
    uint64_t hash = n;

    for (size_t i = 0; i < n; i++) {
        hash = (hash ^ words[i]) * UINT64_C(0x9e3779b97f4a7c15);
        hash ^= hash >> 29;
    }
    return (uint32_t)(hash >> 32 ^ hash);
}

/* The words one after the other, as they are kept; how many. */
static size_t stacks_pack(uint64_t *to, const struct hak_stack_words *words)
{
    size_t frames = words->frames * sizeof(struct hak_frame);

    for (unsigned i = 0; i < words->pcs; i++) {
        to[i] = words->pc[i];
    }
    memcpy(to + words->pcs, words->frame, frames);
    return words->pcs + frames / sizeof(uint64_t);
}

static bool stacks_is(const struct hak_stacks *stacks,
                      const struct hak_stack *stack, uint32_t hash,
                      const struct hak_stack_words *words,
                      const uint64_t *packed, size_t n)
{
    return stack->hash == hash && stack->pcs == words->pcs &&
           stack->frames == words->frames &&
           memcmp(&stacks->word[stack->at], packed, n * sizeof(*packed)) == 0;
}

uint32_t haki_stacks_find(struct hak_stacks *stacks,
                          const struct hak_stack_words *words)
{
    uint64_t packed[HAK_STACK_PCS + 2 * HAK_STACK_FRAMES];
    size_t n = stacks_pack(packed, words);
    uint32_t hash = stacks_hash(packed, n);
    uint32_t *first = &stacks->table[hash % HAK_STACKS_MOST];
    struct hak_stack *stack;
    uint32_t i;

    for (i = *first; i != 0; i = stacks->stack[i].next) {
        if (stacks_is(stacks, &stacks->stack[i], hash, words, packed, n)) {
            return i;
        }
    }
    if (stacks->count == HAK_STACKS_MOST ||
        n > HAK_STACK_WORDS - stacks->words) {
        return 0;
    }
    i = stacks->count++;
    stack = &stacks->stack[i];
    memset(stack, 0, sizeof(*stack));
    stack->hash = hash;
    stack->at = stacks->words;
    stack->pcs = (uint16_t)words->pcs;
    stack->frames = (uint16_t)words->frames;
    memcpy(&stacks->word[stack->at], packed, n * sizeof(*packed));
    stacks->words += (uint32_t)n;
    stack->next = *first;
    haki_lock_step();
    *first = i; /* last, for who finds it in a forked child */
    return i;
}

uint32_t haki_stacks_name(struct hak_stacks *stacks, const char *text,
                          size_t length)
{
    uint32_t hash = 0, i, *first;

    for (size_t k = 0; k < length; k++) {
        hash = (hash ^ (uint8_t)text[k]) * 0x01000193u;
    }
    hash ^= hash >> 15;
    first = &stacks->name_table[hash % HAK_NAMES_MOST];
    for (i = *first; i != 0; i = stacks->name_next[i]) {
        const char *name = stacks->name_text + stacks->name_at[i];

        if (strncmp(name, text, length) == 0 && name[length] == '\0') {
            return i;
        }
    }
    if (length == 0 || stacks->names == HAK_NAMES_MOST ||
        length + 1 > HAK_NAME_BYTES - stacks->name_bytes) {
        return 0;
    }
    memcpy(stacks->name_text + stacks->name_bytes, text, length);
    stacks->name_at[stacks->names] = stacks->name_bytes;
    stacks->name_bytes += (uint32_t)length + 1;
    i = stacks->names++;
    stacks->name_next[i] = *first;
    haki_lock_step();
    *first = i; /* last, as above */
    return i;
}
