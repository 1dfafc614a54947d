/*
 * slab_list.h - the lists of slabs that a heap's lanes keep.
 *
 * The links are in the descriptors. Called by the heap's user only.
 */
#ifndef HAK_SLAB_LIST_H
#define HAK_SLAB_LIST_H

#include "base/assert.h"
#include "range/range.h"

/* Puts a slab at the end of the list *first of open slabs. */
HAK_INLINE void haki_slab_open_last(uint32_t *first, uint32_t number)
{
    struct hak_slab *slab = haki_range_slab(number);
    struct hak_slab *front;

    HAK_ASSERT(number != HAK_NO_SLAB && number != *first);
    slab->open_next = HAK_NO_SLAB;
    slab->open_before = number;
    if (*first == HAK_NO_SLAB) {
        *first = number;
        return;
    }
    front = haki_range_slab(*first);
    haki_range_slab(front->open_before)->open_next = number;
    slab->open_before = front->open_before;
    front->open_before = number;
}

/* The same at its front. */
HAK_INLINE void haki_slab_open(uint32_t *first, uint32_t number)
{
    struct hak_slab *slab = haki_range_slab(number);

    HAK_ASSERT(number != HAK_NO_SLAB && number != *first);
    slab->open_next = *first;
    slab->open_before = number;
    if (*first != HAK_NO_SLAB) {
        slab->open_before = haki_range_slab(*first)->open_before;
        haki_range_slab(*first)->open_before = number;
    }
    *first = number;
}

HAK_INLINE void haki_slab_close(uint32_t *first, uint32_t number)
{
    struct hak_slab *slab = haki_range_slab(number);
    uint32_t next = slab->open_next;

    if (*first == number) {
        *first = next;
    } else {
        HAK_ASSERT(haki_range_slab(slab->open_before)->open_next == number);
        haki_range_slab(slab->open_before)->open_next = next;
    }
    next = next != HAK_NO_SLAB ? next : *first;
    if (next != HAK_NO_SLAB) {
        HAK_ASSERT(next == *first ||
                   haki_range_slab(next)->open_before == number);
        haki_range_slab(next)->open_before = slab->open_before;
    }
}

/* Whether the open slab is the only one in its list. */
HAK_INLINE bool haki_slab_is_alone(uint32_t number)
{
    return haki_range_slab(number)->open_before == number;
}

/* The same for the list of all slabs of a heap's lane. */
HAK_INLINE void haki_slab_join(uint32_t *first, uint32_t number)
{
    struct hak_slab *slab = haki_range_slab(number);

    HAK_ASSERT(number != HAK_NO_SLAB && number != *first);
    slab->all_prev = HAK_NO_SLAB;
    slab->all_next = *first;
    if (*first != HAK_NO_SLAB) {
        haki_range_slab(*first)->all_prev = number;
    }
    *first = number;
}

HAK_INLINE void haki_slab_leave(uint32_t *first, uint32_t number)
{
    struct hak_slab *slab = haki_range_slab(number);

    if (slab->all_prev != HAK_NO_SLAB) {
        HAK_ASSERT(haki_range_slab(slab->all_prev)->all_next == number);
        haki_range_slab(slab->all_prev)->all_next = slab->all_next;
    } else {
        HAK_ASSERT(*first == number);
        *first = slab->all_next;
    }
    if (slab->all_next != HAK_NO_SLAB) {
        HAK_ASSERT(haki_range_slab(slab->all_next)->all_prev == number);
        haki_range_slab(slab->all_next)->all_prev = slab->all_prev;
    }
}

#endif /* HAK_SLAB_LIST_H */
