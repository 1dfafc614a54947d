/*
 * cgroup.h - what the control groups of this process allow, read from files.
 *
 * A group and all those above it may have a limit; the one that
 * leaves the least room binds. Version 2 has memory.max, memory.high and
 * memory.current, version 1 memory.limit_in_bytes and memory.usage_in_bytes.
 * What a group uses includes file pages that the kernel drops when it needs
 * room (inactive_file in memory.stat): a group that reads files is always full
 * of them, and they are not counted.
 *
 * Nothing is allocated and no lock is taken: open, read and close into small
 * buffers on the stack, by the bare system calls, which are no cancellation
 * points. A caller of haki_cgroup_read waits for some ten system calls.
 */
#ifndef HAK_CGROUP_H
#define HAK_CGROUP_H

#include "base/base.h"

/* A longer name of a directory is none that we can use. */
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
 * Finds the group of this process, or takes the directory `fake` for it if that
 * is not NULL. Its `kind` is HAK_CGROUP_NONE if neither it nor one above has
 * the files.
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
    size_t room;       /* the least that is left to any limit, high included */
    unsigned full;     /* in percent, of the group that is fullest */
    unsigned pressure; /* "some avg10" of memory.pressure, in percent */
    /* The first fault, and of which file. */
    enum hak_cgroup_fault fault;
    size_t fault_limit, fault_used;
    char fault_file[HAK_CGROUP_PATH];
    char fault_text[32];
};

/*
 * Reads the files of the group and of all above it. A limit whose file is
 * missing, unreadable or garbled counts as none. False: the group has gone.
 */
bool haki_cgroup_read(const struct hak_cgroup *group,
                      struct hak_cgroup_state *state);

/*
 * How full this process's limits on address space (RLIMIT_AS, RLIMIT_DATA) are,
 * in percent; 0: it has none. They are no control group's, and read as those.
 */
unsigned haki_cgroup_rlimits(void);

/* How full a limit is, in percent; one that is exceeded is 100. */
HAK_INLINE unsigned haki_percent(size_t used, size_t limit)
{
    return used >= limit ? 100 : (unsigned)((hak_u128)used * 100 / limit);
}

#endif /* HAK_CGROUP_H */
