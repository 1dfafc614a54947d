/*
 * share.h - statistics that other processes of the same user can read.
 *
 * A tool looks at a process without stopping or restarting it: each shows
 * its statistics in a page of shared memory (os/shared.h), which says by itself
 * what stands where. In the order of a life:
 *
 *   nothing     A process that is short or small has no such page and pays for none:
 *               it is made by the first look (upkeep/look.h) after a second, or that
 *               finds 32 MB held, and never below a superslab. (In a forked child it
 *               is a second, or 32 MB more, since its own first look.) A program's start is
 *               a hundred microseconds, and this is some fifty of them.
 *   made        Once in the life of a process. Where it can't be (shared.h says
 *               when), or HAKMEM_SHARE_STATS=0, it is not tried again.
 *   unobserved  The page says what was so a while ago: it is written by looks when a
 *               second has passed, or what is held has changed by 4 MB (where there
 *               are so many heaps that it takes long, after a thousand times that);
 *               and by the background thread before it ends. So one finds a program that
 *               has grown or freed much and then sleeps as it is.
 *   observed    A reader adds 1 to `asked`: slow paths compare that word with what
 *               they have answered, and the next one writes the page. While
 *               `watch_until` is to come the background thread answers as well, from
 *               that first answer on: also for a program that sleeps then, or whose
 *               blocks all go through bins.
 *   at rest     What the background thread writes before it ends says with how much
 *               processor time (`rest_cpu`) that was: as long as the process has used
 *               no more, it has changed nothing since.
 *   gone        At exit the file's name. In a forked child the whole: where the page
 *               is stands in memory that the kernel wipes there, by whatever call it
 *               came to be, so it can't write into its parent's. What it inherits of
 *               the mapping it may still read (`asked`), until its first look. A child
 *               by vfork has its parent's memory, and what it writes is true of that.
 *
 * Who writes has `writing`; another thread, a signal's handler, does not wait but
 * goes on. Readers see by `sequence` whether they have read a whole.
 */
#ifndef HAK_SHARE_H
#define HAK_SHARE_H

#include <hakmem.h>

#include "base/base.h"
#include "heap/heap.h"

#define HAK_SHARE_MAGIC "HAKSHARE"
#define HAK_SHARE_VERSION 1

/* What is shown besides the statistics: haki_profile_bytes. */
#define HAK_SHARE_MORE "profile_bytes gauge bytes\n"

/* All of it, and room for the names. */
enum {
    HAK_SHARE_STATS = 0
#define HAK_STAT(name, kind, unit, help) +1
#include <hakmem_stats.def>
#undef HAK_STAT
    ,
    HAK_SHARE_FIELDS = HAK_SHARE_STATS + 1,
    HAK_SHARE_NAMES = sizeof(HAK_SHARE_MORE)
#define HAK_STAT(name, kind, unit, help) +sizeof(#name " " #kind " " #unit)
#include <hakmem_stats.def>
#undef HAK_STAT
};

/* Blocks of one size: given out ever, in use, free in bins; slabs of 64 KB. */
struct hak_share_class {
    _Atomic(uint64_t) allocs, live, kept;
    _Atomic(uint32_t) slabs;
    _Atomic(uint32_t) block; /* bytes; 0: not told yet */
};

/*
 * The page, in the machine's byte order. A reader goes by the magic, the version and
 * the offsets: fields may be added anywhere, and what it does not know it passes over.
 */
struct hak_share {
    /* const when the magic stands there */
    char magic[8];
    uint32_t version;
    uint32_t size;      /* of the whole, bytes */
    uint32_t pid;       /* the process, as it is known to itself */
    uint32_t fields;    /* values, and names */
    uint32_t values_at; /* offset of `values` */
    uint32_t names_at; /* of the names: "NAME KIND UNIT\n" each, 0 at the end */
    uint64_t pid_namespace; /* an inode; 0: unknown */
    uint64_t core;          /* an address in the library that this is of */
    uint64_t began; /* CLOCK_MONOTONIC, nanoseconds: when the page was made */
    char library_version[16];
    /* written by readers */
    _Atomic(uint32_t) asked;
    _Atomic(uint32_t) sampling; /* an order's number: live.h */
    /* written by who has `writing` */
    _Atomic(uint32_t) sequence; /* odd: what follows is being written */
    _Atomic(uint32_t) answered; /* the `asked` that was seen before that */
    _Atomic(uint64_t) written;  /* CLOCK_MONOTONIC, nanoseconds */
    /* an order, by the reader who has locked the file (live.h) */
    _Atomic(uint64_t) sample_rate; /* bytes a sample */
    _Atomic(uint64_t)
        sample_until; /* CLOCK_MONOTONIC, nanoseconds; 0: no more */
    /* the answer */
    _Atomic(uint32_t) sampled;      /* the `sampling` that was seen last */
    _Atomic(uint32_t) sample_state; /* enum hak_live_state */
    _Atomic(uint32_t)
        sample_error; /* errno of the last file that failed, or 0 */
    _Atomic(uint32_t) sample_files; /* how many were written */
    /* const: offset of `class`, and how many there are */
    uint32_t classes_at, classes;
    _Atomic(uint64_t)
        watch_until; /* CLOCK_MONOTONIC, nanoseconds; by readers, who raise it */
    _Atomic(uint64_t)
        rest_cpu; /* with `written`: CLOCK_PROCESS_CPUTIME_ID then; 0: unknown */
    _Atomic(uint64_t) values[HAK_SHARE_FIELDS];
    char names[HAK_SHARE_NAMES];
    /* By size, in bytes: where somebody has asked, then and at rest. */
    struct hak_share_class class[HAK_CLASSES];
};

#define HAK_SHARE_BYTES haki_round_up(sizeof(struct hak_share), HAK_PAGE)

/* Until when somebody watches or samples: milliseconds from now, 0: nobody. */
uint32_t haki_share_watched(const struct hak_share *page);

#ifdef HAK_TESTING
/* Tests only: the page, NULL: there is none (yet); the file's path. */
struct hak_share *haki_share_page(void);
const char *haki_share_path(void);
#endif

/* The program ends: the file's name goes. Any number of times. */
void haki_share_close(void);

#endif /* HAK_SHARE_H */
