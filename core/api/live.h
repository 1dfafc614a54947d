/*
 * live.h - a profile that another process of the same user asks for.
 *
 * A process shows a page of statistics (share.h). By the same page somebody can ask it
 * to sample for a while (profile/profile.h), and what was sampled comes back as a file
 * beside the page. Nothing of that is seen by a hot path, and there is no thread that
 * waits for it.
 *
 *     who asks                                the process
 *     locks the page's file (flock)
 *     sample_rate, sample_until = now + lease
 *     sampling = an order's number, asked++
 *                                             a slow path compares `asked`, looks here:
 *                                               samples from now on, writes a file,
 *                                               sampled = the order's number
 *     sample_until = now + lease, asked++,    every second, if there is something new,
 *       again and again                         the file anew
 *     sampling = the next order's number      the same: so the file is of now
 *     sample_until = 0, an order              samples no more
 *
 * Where orders are seen: on slow paths (upkeep/look.h), with none of our locks held, and
 * in the background thread, which goes on while somebody asks (haki_look_watched). So a
 * program that sleeps answers as well, if it has done something since it was asked for
 * the first time; and where it may have no such thread, its file is of when it last did.
 *
 * What is done there can be done in the middle of anybody's malloc, who may hold the
 * loader's lock or any other: to start takes the profile's own lock and no memory but
 * the kernel's; to write copies stacks as they are, numbers, into a file that is mapped.
 * No function has a name there, no table of symbols is read, no loader is asked: that is
 * for who reads it, by /proc/PID/maps and the programs' files.
 *
 *   killed, the one     sampling ends by itself when sample_until has passed: a sample
 *   that asks           finds that (haki_profile.until), if no look does; the kernel
 *                       drops its lock
 *   two that ask        the second does not get the lock
 *   killed, the         its last file, at most a second older, is there for who holds
 *   process             the page; the name goes with the next who makes a page
 *   fork                a child has no page of its parent's; it samples as its parent did
 *                       until sample_until, which it can still read, or its own
 *                       page's first order
 *   exec                its page is gone (CLOEXEC, the mapping), and so is the profile
 *   its own profile     is not touched, but written as well: HAK_LIVE_OTHERS. If it
 *                       switches one on or off (hak_profile_start) that holds
 *   an older library    its page has no such fields (values_at says so); in a newer
 *                       one's they are where they were
 *   a full disk, few    sample_error says so; the file of before stays whole, the new
 *   descriptors, a      one is never seen
 *   filter of calls
 *
 * What was given out before sampling began is not in it, but for what an earlier
 * profile has seen.
 */
#ifndef HAK_LIVE_H
#define HAK_LIVE_H

#include "api/share.h"
#include "os/shared.h"

/* What `sample_state` says of the last order. */
enum hak_live_state {
    HAK_LIVE_NONE,   /* it samples for nobody */
    HAK_LIVE_ON,     /* for who asks */
    HAK_LIVE_OTHERS, /* it has a profile of its own, which goes on */
    HAK_LIVE_FAILED  /* sample_error says why */
};

#define HAK_LIVE_MAGIC "HAKSTACK"
#define HAK_LIVE_VERSION 1

/*
 * The file, PAGE.profile, in the machine's byte order: this, and then what its
 * numbers and offsets name. Never seen half written.
 */
struct hak_live_file {
    char magic[8];
    uint32_t version;
    uint32_t head; /* bytes of this */
    uint64_t size; /* of the file */
    uint32_t pid;
    uint32_t state;                       /* enum hak_live_state */
    uint64_t rate;                        /* bytes a sample */
    uint64_t began, written;              /* CLOCK_MONOTONIC, nanoseconds */
    uint64_t core;                        /* as in struct hak_share */
    uint64_t samples, dropped;            /* since the first profile */
    uint32_t stacks, words, names, bytes; /* how many there are */
    uint32_t stacks_at, words_at, names_at, bytes_at;
};

/*
 * A stack; its words are program counters of C, and then frames (struct hak_frame,
 * two words each), leaf first. Names are zero-terminated, at names[] + bytes_at.
 */
struct hak_live_stack {
    uint32_t at; /* its first word */
    uint16_t pcs, frames;
    uint64_t bytes[2], count[2]; /* as struct hak_sums */
};

/* What is kept between looks; all zero at first, and in a forked child. */
struct hak_live {
    atomic_bool busy;       /* some thread looks */
    _Atomic(uint32_t) due;  /* haki_os_tick() of the next file; 0: none */
    _Atomic(uint64_t) mark; /* of what the last one had */
    uint64_t began;
};

/* Whether there is an order that nobody has seen, or a file is due. */
bool haki_live_is_due(const struct hak_live *live, const struct hak_share *page,
                      uint32_t now);

/* Sees to that. No lock of ours is held; keeps errno. */
void haki_live_look(struct hak_live *live, struct hak_share *page,
                    const struct hak_shared *file, uint32_t now);

#endif /* HAK_LIVE_H */
