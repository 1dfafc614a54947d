/*
 * inside.h - hakmem.h's functions for calls from inside: see HAK_INSIDE.
 */
#ifndef HAK_INSIDE_H
#define HAK_INSIDE_H

#include <hakmem.h>

#include "base/base.h"

extern HAK_HIDDEN __typeof__(hak_free) haki_inside_free;
extern HAK_HIDDEN __typeof__(hak_heap_new) haki_inside_heap_new;
extern HAK_HIDDEN __typeof__(hak_heap_delete) haki_inside_heap_delete;
extern HAK_HIDDEN __typeof__(hak_heap_trim) haki_inside_heap_trim;

#endif /* HAK_INSIDE_H */
