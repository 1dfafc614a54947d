/*
 * heap_explicit.h - an explicit heap's blocks, looked up by address.
 */
#ifndef HAK_HEAP_EXPLICIT_H
#define HAK_HEAP_EXPLICIT_H

#include "base/msg.h"
#include "heap/account.h"

/*
 * The usable size of p; fatal, naming `caller`, if it is not a block of the
 * heap's.
 */
size_t haki_made_size(struct hak_heap *heap, const void *p, const char *caller);

/*
 * Resizes p, a block of the heap's with `old` bytes, to `size` bytes; if it
 * moves, the first `keep` bytes are copied. NULL: p is untouched, errno is
 * ENOMEM.
 */
void *haki_made_resize(struct hak_heap *heap, void *p, size_t old, size_t keep,
                       size_t size);

/*
 * Ends the program if `asked`, which the caller claims p was made for, is more
 * than its `usable` bytes.
 */
HAK_INLINE void haki_made_need(const void *p, size_t asked, size_t usable,
                               const char *caller)
{
    if (HAK_UNLIKELY(asked > usable)) {
        haki_fatal("%s(%p, %zu): the block has only %zu bytes", caller, p,
                   asked, usable);
    }
}

#endif /* HAK_HEAP_EXPLICIT_H */
