/*
 * cgroup.h - what the control groups of this process allow, read from files.
 *
 * A group and each group above it may have a limit; the one that leaves the
 * least room counts. Version 2 has memory.max, memory.high and memory.current,
 * version 1 memory.limit_in_bytes and memory.usage_in_bytes. A group's use
 * includes file pages that the kernel drops when it needs room (inactive_file
 * in memory.stat). They fill any group that reads files, so they are not
 * counted here.
 *
 * Nothing is allocated and no lock is taken: files are read into small buffers
 * on the stack, with bare system calls, which are not cancellation points.
 * haki_cgroup_read makes some ten system calls.
 */
#ifndef HAK_CGROUP_H
#define HAK_CGROUP_H

#include "base/base.h"

/* Directories with a longer name are not used. */
#define HAK_CGROUP_PATH 512

enum hak_cgroup_kind {
    HAK_CGROUP_NONE, /* no group with a memory controller */
    HAK_CGROUP_V1,
    HAK_CGROUP_V2
};

struct hak_cgroup {
    enum hak_cgroup_kind kind;
    char dir[HAK_CGROUP_PATH]; /* the lowest group that has limits */
};

/*
 * Finds the group of this process, or uses the directory `fake` instead if that
 * is not NULL. `kind` is HAK_CGROUP_NONE if neither this group nor any above it
 * has the files.
 */
void haki_cgroup_find(struct hak_cgroup *group, const char *fake);

/* A file that does not say what it should. */
enum hak_cgroup_fault {
    HAK_CGROUP_FINE,
    HAK_CGROUP_GARBLED, /* neither a number nor "max" */
    HAK_CGROUP_OVER     /* the hard limit is below what is in use */
};

/* What the groups say at one moment; sizes in bytes. */
struct hak_cgroup_state {
    size_t limit;      /* the smallest hard limit; SIZE_MAX: there is none */
    size_t room;       /* the least that a limit leaves, high included */
    unsigned full;     /* percent, of the fullest group */
    unsigned pressure; /* "some avg10" of memory.pressure, in percent */
    /* The first fault, and in which file. */
    enum hak_cgroup_fault fault;
    size_t fault_limit, fault_used;
    char fault_file[HAK_CGROUP_PATH];
    char fault_text[32];
};

/*
 * Reads the files of the group and of all groups above it. A limit whose file
 * is missing, unreadable or garbled counts as none. False: the group has gone.
 */
bool haki_cgroup_read(const struct hak_cgroup *group,
                      struct hak_cgroup_state *state);

/*
 * How full this process's limits on address space (RLIMIT_AS, RLIMIT_DATA) are,
 * in percent; 0: it has none. (Not a control group's limits, but read in the
 * same way.)
 */
unsigned haki_cgroup_rlimits(void);

/* How full a limit is, in percent; 100 if it is exceeded. */
HAK_INLINE unsigned haki_percent(size_t used, size_t limit)
{
    return used >= limit ? 100 : (unsigned)((hak_u128)used * 100 / limit);
}

#endif /* HAK_CGROUP_H */
