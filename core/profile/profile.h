/*
 * profile.h - samples of what is allocated: who asks for the memory.
 *
 * Off as a rule. While it is on, of the bytes given out one in `rate` begins a
 * sample (draw.h); of each sampled block there is a record, until it is freed, with
 * the stack that asked for it.
 *
 *     a pop of a bin   counts down to the bin's next sample; where that is due the
 *                      hot path takes the bin for empty, and the slow one asks here
 *     ACE, Huge and    count bytes down, a heap's together (haki_sampler_due), in
 *     packed slabs     their own paths
 *
 * A sampled block of Tiny's and Pool's sizes comes from slabs of its own (samples.h),
 * whose tag is no heap's. One of ACE's and Huge's is marked in its owner's id, outside
 * (HAK_OWNER_SAMPLED), so that no cache of runs takes it back. So nobody else's free
 * looks for a record.
 *
 * What off costs: a pop counts down instead of up, and jumps if that falls below
 * zero, one instruction; off, it begins so high that it never does. On and off is a
 * number, `round`, that heaps compare with what they saw last whenever they are in a
 * slow path, a refill or a look at a bin: then all their bins draw anew. So another
 * thread's heap takes part from its next slow path on, which comes before any of its
 * bins has taken back 256 KB, or at once if one is empty; an idle one's need not
 * come.
 *
 * Invariants, for each class of a heap:
 *   - blocks given out, ever = at - max(until, 0), where `at` is HAK_NEVER or, with
 *     `sampled`, what the heap's struct hak_sampling has;
 *   - until < 0 only from a pop that found a sample due to the slow path it takes;
 *   - struct hak_sampling, a page of the heap's slot, means something only with
 *     `sampled`.
 *
 * Invariants under the lock:
 *   - a record is live if p != 0, which is written last and cleared first; a live
 *     one is in the table of addresses, and in the sums of its stack;
 *   - a block in samples' slabs is in use exactly if a record has it.
 * The runtime's and the unwinder's code never run with the lock held. A child has its
 * parent's records, live as its blocks are, and begins with no sums of what was given
 * out.
 *
 * Bounds: HAK_RECORDS_MOST live records, stacks.h. What has no place is not sampled
 * and counted (haki_profile_counts).
 */
#ifndef HAK_PROFILE_H
#define HAK_PROFILE_H

#include "os/lock.h"
#include "profile/draw.h"
#include "profile/samples.h"
#include "profile/stacks.h"

#define HAK_RECORDS_MOST 65536u

/* Guarded blocks (guarded.h) are drawn with the samples and have records as well. */

/* So far above zero does a count-down begin that is to no sample. */
#define HAK_NEVER (INT64_MAX / 2)

/* In the id of an ACE or Huge block's owner: there is a record of it. */
#define HAK_OWNER_SAMPLED 0x80000000u
#define HAK_OWNER(owner) ((owner) & ~HAK_OWNER_SAMPLED)

struct hak_profile {
    _Atomic(uint32_t) round; /* changes with these, and in a forked child */
    _Atomic(size_t) rate;    /* bytes a sample; 0: off */
    /* A word that says until when (haki_os_clock), read by each sample; NULL: until it
     * is switched off. */
    _Atomic(const _Atomic(uint64_t) *) until;
    _Atomic(size_t) guards; /* bytes a guarded block; 0: off */
    _Atomic(size_t) draw;   /* bytes to the next of either; 0: both are off */
};

extern HAK_HIDDEN struct hak_profile haki_profile;

/* What a heap needs while there is a profile: Tiny's bins, then Pool's. */
#define HAK_SAMPLING_POOL 48u
#define HAK_SAMPLING_BINS 96u
struct hak_sampling {
    /* the heap's user */
    uint64_t random;
    int64_t at[HAK_SAMPLING_BINS];
    int64_t until_larger; /* bytes until the next sample that is not of a bin */
    /* any thread; of an explicit heap */
    _Atomic(uint32_t) samples; /* live ones */
    _Atomic(size_t)
        samples_freed; /* bytes that others freed and its account has */
};

struct hak_heap;

/*
 * Tells the frames of the runtime that runs on the calling thread, leaf first, at
 * most `most`; how many. Called on slow paths of allocation, by the thread that
 * allocates, with none of our locks held: it must not allocate by us, raise errors,
 * or wait. `heap` is the one that allocates. *below: only so many of the C frames
 * are told as well, those nearest to the leaf; it is SIZE_MAX at first, all.
 */
typedef unsigned haki_frames_fn(struct hak_heap *heap, struct hak_frame *frames,
                                unsigned most, size_t *below);

/* The line of a frame with a token; called when a profile is written. */
typedef uint32_t haki_line_fn(const struct hak_frame *frame);

/* The process's runtime; NULL: none. A heap with its own is asked in its place. */
void haki_profile_set_frames(haki_frames_fn *frames, haki_line_fn *line);

/* The line of a frame, found by that if need be. */
uint32_t haki_profile_line(const struct hak_frame *frame);

/* A frame of a function in C that the runtime called, which begins at `function`: its
 * name is looked for when a profile is written. */
void haki_profile_frame_of_c(struct hak_frame *frame, const void *function);

/* Where that function begins, or NULL: the frame is another. */
const void *haki_profile_c_of_frame(const struct hak_frame *frame);

/* The number of a name, for struct hak_frame; 0: no room. For the calls above. */
uint32_t haki_profile_name(const char *text, size_t length);

/*
 * Two chances at once. With a profile of rate R and guards of rate G a draw is due each
 * 1/(1/R + 1/G) bytes, rounded down; a block of which one was due is then a sample, a
 * guarded one, both or neither with the probabilities that both alone had had.
 */
enum hak_drawn { HAK_DRAWN_SAMPLE = 1, HAK_DRAWN_GUARD = 2 };
unsigned haki_profile_drawn(size_t bytes, uint64_t *random);

/* haki_draw_blocks for both. */
int64_t haki_profile_draw(size_t bytes, uint64_t *random);

/* Who allocates. */
struct hak_sampler {
    struct hak_heap *heap;
    uint64_t *random;        /* the heap's */
    haki_frames_fn *frames;  /* the heap's own, or NULL */
    _Atomic(uint32_t) *live; /* counts an explicit heap's samples, or NULL */
    uint32_t owner;          /* such a heap's id, or HAK_ID_SHARED */
};

/*
 * A sample: a block of `bytes` bytes from the samples' slabs, with a record. NULL:
 * the profile is off, there is no room; the caller serves the request as any.
 */
void *haki_sample_take(size_t bytes, const struct hak_sampler *who);

/*
 * A record of p, a block of ACE's or Huge's; its owner's id is to be marked. False:
 * as above.
 */
bool haki_sample_note(void *p, size_t bytes, const struct hak_sampler *who);

/* A sampled block. */
struct hak_record {
    uintptr_t p;           /* 0: the record is free */
    size_t size;           /* its bytes */
    uint64_t bytes, count; /* what it stands for, as in struct hak_sums */
    uint64_t time;         /* nanoseconds, haki_os_clock */
    uint32_t stack;
    uint32_t owner;
    int32_t thread; /* as the kernel knows it */
    uint32_t next;  /* of the free ones; 0: the last */
};

/*
 * While a block of ACE's or Huge's is being resized its record is away: a copy is
 * kept. False: p has none, or there is no room for it any more.
 */
bool haki_sample_lift(void *p, struct hak_record *kept);
bool haki_sample_put_back(void *p, const struct hak_record *kept);

struct hak_sampled {
    size_t bytes;  /* of its class */
    size_t usable; /* less than that only of a guarded one */
    uint32_t owner;
};

/*
 * Frees p, a block in the samples' slabs, or forgets the record of one elsewhere;
 * tells what it was. False: there is no such record.
 */
bool haki_sample_free(void *p, struct hak_sampled *sampled);

/* Tells about it. */
bool haki_sample_find(const void *p, struct hak_sampled *sampled);

/* The same of the block in the samples' slabs that p lies in. */
bool haki_sample_around(const void *p, struct hak_sampled *sampled);

/* Frees and forgets all of an owner's, which is being deleted. */
void haki_sample_free_owner(uint32_t owner);

/* Begins a sequence of random numbers for a heap. */
uint64_t haki_sample_seed(void);

/* ---- on and off, sums ---------------------------------------------------------- */

/* Sets the rate; 0: off. False: there is no memory for it (ENOMEM). From off to on
 * the sums of what was given out begin at 0. */
bool haki_profile_set(size_t rate);

/*
 * The same, from off to on, until the time in a word that stays readable for ever and
 * may change; and in the middle of anybody's malloc: nothing is loaded, so that
 * there are C frames only where the unwinder is there already. haki_profile_set, by
 * whomever, makes it theirs.
 */
bool haki_profile_lend(size_t rate, const _Atomic(uint64_t) *until);

/* Switches off what was lent, if it still is. */
void haki_profile_end_lent(void);

/* Whether a sample of any kind may be taken now; ends what was lent if its time has
 * passed. */
bool haki_profile_goes_on(void);

/* The same of guards, whose memory is set by the first call. */
bool haki_profile_set_guards(size_t rate, size_t memory);

/* The sums as of now are what haki_profile_read subtracts with `grown`. */
void haki_profile_mark(void);

/* The rate, or the one before it was switched off. */
size_t haki_profile_last_rate(void);

/* Whether that was done since the profile was last switched on. */
bool haki_profile_is_marked(void);

struct hak_profile_counts {
    uint64_t samples, dropped; /* taken, and not for want of room */
    uint32_t live;             /* records */
    size_t held;               /* bytes of samples' slabs and guarded pages */
    /* Of blocks in samples' slabs, for the statistics of Tiny and Pool: */
    uint64_t allocs[2], frees[2], live_bytes[2];
};
void haki_profile_counts(struct hak_profile_counts *counts);

/* Bytes in blocks in samples' slabs and guarded ones; without the lock, a moment old. */
size_t haki_profile_live_bytes(void);

/* Bytes that samples and all about them have in memory, as far as known. No statistic
 * has them. */
size_t haki_profile_bytes(void);

/*
 * A copy of all stacks as of now, in memory of its own, for haki_profile_drop. NULL,
 * which that takes as well: out of memory, or there never was a profile. `grown`: sums
 * less the mark's.
 */
struct hak_stacks *haki_profile_read(bool grown);
void haki_profile_drop(struct hak_stacks *stacks);

/* In a forked child: see haki_lock_settle. */
bool haki_profile_forked(void);

#ifdef HAK_TESTING
/* Tests only: from here on heaps' sequences begin from this. */
void haki_profile_test_seed(uint64_t seed);
#endif

#endif /* HAK_PROFILE_H */
