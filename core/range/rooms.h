/*
 * rooms.h - superslabs that are kept free behind a run, for it to grow into.
 */
#ifndef HAK_ROOMS_H
#define HAK_ROOMS_H

#include "range/range.h"

/* Gives back the room behind a run. */
void haki_range_room_give(uint32_t first, uint32_t room);

/* How much room a growing run of `bytes` bytes should ask for. */
uint32_t haki_range_room_for(size_t bytes);

#endif /* HAK_ROOMS_H */
