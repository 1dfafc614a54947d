/*
 * stats.h - printing the statistics when a program ends: HAKMEM_SHOW_STATS.
 *
 * What hakmem.h declares of them is defined in stats.c and stats_text.c.
 */
#ifndef HAK_STATS_H
#define HAK_STATS_H

#include <hakmem.h>

#include "base/base.h"

/* hak_stats for calls from inside: see HAK_INSIDE. */
extern HAK_HIDDEN __typeof__(hak_stats) haki_inside_stats;

/*
 * The process's blocks by class of size, HAK_CLASSES of them (heap/heap.h), zero before.
 * Blocks in packed slabs have no slab of a class.
 */
struct hak_class_counts;
void haki_stats_classes(struct hak_class_counts *classes);

/*
 * Prints the statistics to fd in the form that HAKMEM_SHOW_STATS asks for, if it
 * does. Only the first call in a process prints; a forked child has a first
 * call of its own. Called when the program ends or the library is unloaded.
 */
void haki_stats_report(int fd);

/*
 * For each file with public functions: makes a program that is linked with an
 * archive include the report, whichever function it calls. `file` is the file's
 * name.
 */
#define HAK_STATS_AT_END(file)                                                 \
    static void (*const file##_stats_at_end)(int) __attribute__((used)) =      \
        haki_stats_report

#endif /* HAK_STATS_H */
