/*
 * purge.h - free memory goes back: what who knows more tells purge.c.
 *
 * Layer 3. What threads leave when they end waits for the next threads, which
 * find it resident. If none has begun for a quarter of HAKMEM_PURGE_DELAY it is
 * no longer waited for, and goes: where it is at least half of what is free and resident
 * all of that does, since nobody knows whose a free slab was.
 *
 *     thread ends --> left += the slabs it had at most, left_at = now
 *     thread begins ----------------------------> left = 0
 *     left >= HAK_LEFT_LEAST, delay / 4 after left_at --> purged, left = 0
 */
#ifndef HAK_PURGE_H
#define HAK_PURGE_H

#include "range.h"

#define HAK_LEFT_LEAST 64 /* slabs */

/* A thread has a heap from now on. */
void hak_purge_thread_began(void);

/* A thread has ended, whose heap had so many slabs. */
void hak_purge_thread_ended(uint32_t slabs);

/*
 * For who has nothing else to do: hak_range_tick, but not with a pause between
 * two portions. True: another portion is due.
 */
bool hak_purge_portion(uint32_t now);

#endif /* HAK_PURGE_H */
