/*
 * hard.h - what the hardened build (make HARDENED=1) adds.
 *
 * Everything here is inline and compiles to nothing when HAK_HARD is 0, so that
 * other files need no conditions of their own and the normal build's hot paths
 * are unchanged. Three secrets, drawn once per process before it has a block
 * and inherited by forked children, make what follows hard to forge.
 *
 * Links. A free Tiny block of 16 bytes or more (there are no smaller ones in
 * this build) holds two words:
 *
 *     | link: next ^ secret ^ (address >> 12) | mark | what its user left ...
 *
 * The mark is computed from the block's address, its encoded link and a secret,
 * in such a way that two links never have the same mark. So
 *   - a block in any list of free blocks (bin, spare, slab, outbox, inbox) has
 *     its mark, and one in use has not: the mark is wiped when the block leaves
 *     the last list;
 *   - a block freed with its mark in place is free already;
 *   - (a free block on a page that was given back to the system is in no list
 *     and reads as zero; the slab's descriptor knows these pages, see
 *     haki_tiny_refuse;)
 *   - a block that leaves a list without its mark was written to while it was
 *     free, and its link is not followed. Nothing else has to check that a link
 *     leads to a block: it does unless both words were overwritten, and match.
 * Every link is read with haki_link_get and written with haki_link_set.
 *
 * Pool writes nothing into free blocks: there the span's descriptor has a bit
 * for each block in a bin (haki_pool_note), as it has one for each that is free
 * in the span or was freed by another thread. ACE has a byte for each run in a
 * cache; Huge's tags suffice.
 *
 * Guards. A block of a thread's heap, of any lane, ends with a word that tells
 * how many bytes were asked for; a canary byte follows those bytes:
 *
 *     | size bytes | canary | not used | guard: key ^ (size << 16) |
 *
 * where key is computed from the address and a secret, and the canary is its
 * lowest byte, odd so that a string's terminating zero does not match it. With
 * no unused bytes the guard follows at once; its lowest byte is the key's, so it
 * is the canary then. Hence for each block in use: byte `size` is the canary,
 * and 16 bits of the guard are the key's own, so that the report of a write past
 * the end, by one byte or two, can name the size. The guard is written when a
 * block is given out or resized, and checked when it is resized, freed or asked
 * for its usable size, which is the size asked for. A request grows by the
 * guard's 8 bytes before its lane and class are looked up. In a large block this
 * may make one page resident that its user did not touch.
 *
 * Blocks of explicit heaps, including Lua states', have no guards: their owner
 * often knows the sizes, and is charged for them. Links, marks and bits protect
 * them too. Blocks of the system allocator are not protected by us.
 *
 * Random start. The range begins a random number of superslabs behind where
 * the kernel put it, and new blocks are handed out in random order.
 */
#ifndef HAK_HARD_H
#define HAK_HARD_H

#include "base/base.h"

#ifdef HAK_HARDENED
#define HAK_HARD 1
#else
#define HAK_HARD 0
#endif

/* The bytes of a guard. */
#define HAK_GUARD_BYTES ((size_t)(HAK_HARD ? sizeof(uint64_t) : 0))

/* An odd number: multiplying by it loses nothing. */
#define HAK_HARD_ODD UINT64_C(0x9e3779b97f4a7c15)

/* Constant after haki_hard_start. */
struct hak_hard {
    uintptr_t link, mark, guard;
};

extern HAK_HIDDEN struct hak_hard haki_hard;

/* Draws the secrets, before there is a block. Only if HAK_HARD. */
void haki_hard_start(void);

/* A random number below n. Only if HAK_HARD. */
uint32_t haki_hard_below(uint32_t n);

/* These end the program. */
HAK_COLD _Noreturn void haki_hard_freed(const void *p, const char *caller);
HAK_COLD _Noreturn void haki_hard_written(const void *p);
HAK_COLD _Noreturn void haki_hard_broken(const void *p, size_t block,
                                         const char *caller);

/* ---- links ---------------------------------------------------------------- */

/* Encodes a link as it is stored in a block, and decodes it. */
HAK_INLINE struct hak_block *haki_link_turn(const struct hak_block *block,
                                            struct hak_block *next)
{
    if (HAK_HARD) {
        next = (struct hak_block *)((uintptr_t)next ^ haki_hard.link ^
                                    (uintptr_t)block >> 12);
    }
    return next;
}

/* The mark of a block with its present link. */
HAK_INLINE uintptr_t haki_hard_mark(const struct hak_block *block)
{
    return (((uintptr_t)block->next + haki_hard.mark) ^ (uintptr_t)block) *
           HAK_HARD_ODD;
}

/* Whether p, a block of at least 16 bytes, has the mark of a free block. */
HAK_INLINE bool haki_hard_marked(const void *p)
{
    const struct hak_block *block = p;

    return ((const uintptr_t *)p)[1] == haki_hard_mark(block);
}

/* The block after a free one. */
HAK_INLINE struct hak_block *haki_link_get(const struct hak_block *block)
{
    if (HAK_HARD && HAK_UNLIKELY(!haki_hard_marked(block))) {
        haki_hard_written(block);
    }
    return haki_link_turn(block, block->next);
}

/* Makes `next` the block after a free one. */
HAK_INLINE void haki_link_set(struct hak_block *block, struct hak_block *next)
{
    block->next = haki_link_turn(block, next);
    if (HAK_HARD) {
        ((uintptr_t *)block)[1] = haki_hard_mark(block);
        /* A fork may copy a list at any time: it must be whole. */
        atomic_signal_fence(memory_order_release);
    }
}

/* The block has left the lists for its user. */
HAK_INLINE void haki_link_wipe(struct hak_block *block)
{
    if (HAK_HARD) {
        atomic_signal_fence(memory_order_release);
        block->next = NULL;
        ((uintptr_t *)block)[1] = 0;
    }
}

/*
 * Marks a free block that goes into no list, so that a second free is noticed.
 * Other builds don't touch it.
 */
HAK_INLINE void haki_link_mark(struct hak_block *block)
{
    if (HAK_HARD) {
        haki_link_set(block, NULL);
    }
}

/* Ends the program if p, which is being freed, is in a list already. */
HAK_INLINE void haki_link_refuse(const void *p)
{
    if (HAK_HARD && HAK_UNLIKELY(haki_hard_marked(p))) {
        haki_hard_freed(p, "free");
    }
}

/* ---- guards ---------------------------------------------------------------- */

/* What to ask the lanes for when `size` bytes are asked for. */
HAK_INLINE size_t haki_hard_grow(size_t size)
{
    return !HAK_HARD || size > PTRDIFF_MAX ? size : size + HAK_GUARD_BYTES;
}

HAK_INLINE uint64_t haki_hard_key(const void *p)
{
    uint64_t key = ((uintptr_t)p ^ haki_hard.guard) * HAK_HARD_ODD;

    return (key ^ key >> 32) | 1;
}

/* The place of the guard of a block. */
HAK_INLINE uint64_t *haki_hard_place(const void *p, size_t block)
{
    return (uint64_t *)((uintptr_t)p + block - HAK_GUARD_BYTES);
}

/* Seals p (NULL: does nothing), a block of `block` bytes; returns it. */
HAK_INLINE void *haki_guard_set(void *p, size_t block, size_t size)
{
    if (HAK_HARD && HAK_LIKELY(p != NULL)) {
        uint64_t key = haki_hard_key(p);

        *haki_hard_place(p, block) = key ^ (uint64_t)size << 16;
        ((unsigned char *)p)[size] = (unsigned char)key;
    }
    return p;
}

/*
 * What was asked for when p, a guarded block of `block` bytes, was given out;
 * else `block`. Ends the program, naming `caller`, if the guard is broken.
 */
HAK_INLINE size_t haki_guard_check(const void *p, size_t block,
                                   const char *caller)
{
    uint64_t key, word;
    size_t size;

    if (!HAK_HARD) {
        return block;
    }
    key = haki_hard_key(p);
    word = *haki_hard_place(p, block) ^ key;
    size = word >> 16;
    if (HAK_UNLIKELY((word & 0xffff) != 0 || size > block - HAK_GUARD_BYTES ||
                     ((const unsigned char *)p)[size] != (unsigned char)key)) {
        haki_hard_broken(p, block, caller);
    }
    return size;
}

#endif /* HAK_HARD_H */
