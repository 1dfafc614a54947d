/*
 * hak_py_spare.c - the last of a HAKMEM_LIMIT is kept back.
 *
 * CPython ends the program if there is no memory for the exception that says
 * so. So what would come from the last part of the limit is refused; from then
 * on small blocks may have it, until there is more room again.
 */
#include "hak_py.h"
#include "relief.h"

#define SHARE 32 /* of the limit */
#define LEAST (64 * HAK_KIB)
#define MOST HAK_MIB

bool hak_py_limit_spares(struct hak_heap *heap, size_t size)
{
    static atomic_bool met;
    size_t limit = atomic_load(&hak_pressure.limit);
    size_t spare = hak_min(hak_max(limit / SHARE, LEAST), MOST);
    size_t room = hak_limit_room();

    if (room < 2 * spare) {
        if (atomic_load(&met) && size <= HAK_LANE_TINY_MAX) {
            return true;
        }
        if (room < spare && hak_relief(heap, size)) {
            room = hak_limit_room();
        }
    }
    atomic_store(&met, room < spare);
    return room >= spare;
}
