/*
 * records.h - the records of sampled blocks; for the files of profile/ alone.
 */
#ifndef HAK_RECORDS_H
#define HAK_RECORDS_H

#include "profile/profile.h"

/* Of the table of addresses: at most half of them are used. */
#define HAK_RECORD_PLACES (2 * HAK_RECORDS_MOST)

struct hak_records {
    hak_lock lock;
    /* under it */
    struct hak_stacks *stacks; /* NULL: there never was a profile */
    struct hak_record *record; /* the 0th is not used */
    uint32_t *table;           /* records by address; 0: free */
    uint32_t high, free;       /* records ever used; the first free one */
    struct hak_profile_counts counts;
};

extern HAK_HIDDEN struct hak_records haki_records;

/* What a ghost (lock.h) has left: all is made anew of the records. */
void haki_records_mend(void);

/* profile.c: the stack of the calling thread, at most so many frames of C and of the
 * runtime from the leaf on; `who` may be of no heap. */
void haki_profile_capture(struct hak_stack_words *words,
                          const struct hak_sampler *who, unsigned most);

#endif /* HAK_RECORDS_H */
