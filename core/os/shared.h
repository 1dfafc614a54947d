/*
 * shared.h - a few pages that processes of the same user can look into.
 *
 * A file in a folder that is this user's alone, mapped by both sides. Who makes it
 * is a guest in somebody's process, at any moment of its life, hence:
 *
 *   a filter of system calls   Some calls kill a process that has one (seccomp(2)),
 *                              even the question whether it has. So its state is
 *                              read in /proc/self/status, by the calls that
 *                              cgroup.h makes all the time, and where there is one
 *                              nothing is made.
 *   set-user-ID programs       nothing is made
 *   RLIMIT_FSIZE               a file that would exceed it is not tried: SIGXFSZ
 *   a full file system         the blocks are had before they are mapped, so that
 *                              no write to them fails (SIGBUS)
 *   file descriptors           closed again before we return, and never inherited
 *   somebody else's folder     found by its descriptor: a directory, no symbolic
 *                              link, of the effective user, with no rights for
 *                              others; the file is new (O_EXCL)
 *   fork                       the child has the mapping, too: who writes must know
 *                              that it is not one (haki_os_map_wiped)
 *   the end                    the name goes if it is still the file's; what processes
 *                              that were killed have left is removed by who comes next
 *
 * No lock, no allocation, no cancellation point; errno is kept.
 */
#ifndef HAK_SHARED_H
#define HAK_SHARED_H

#include "base/base.h"

#define HAK_SHARED_PATH 256

/* What is made; all zero: nothing is. */
struct hak_shared {
    void *memory;
    size_t size;
    uint64_t device, inode;
    char path[HAK_SHARED_PATH];
};

/*
 * Maps `size` bytes, whole pages, all zero, as the file PID.NAMESPACE.SUFFIX (the last
 * two in hexadecimal, see haki_shared_namespace) of the folder hakmem in `runtime`, which is what the environment calls
 * XDG_RUNTIME_DIR; or, where that is empty or not this user's, of hakmem-UID in the
 * folder for temporary files. False: it can't be done here, and nothing is left
 * behind but an empty folder.
 */
bool haki_shared_make(struct hak_shared *shared, const char *runtime,
                      size_t size, uint64_t suffix);

/*
 * Another one, not full of holes either, to be filled and then seen as a whole: the
 * first function maps a new file beside that of `beside`, the second gives it the name of
 * that one with `ending`, in place of what had it, and unmaps it. 0, or errno where it
 * can't be done: EPERM under a filter, EFBIG by RLIMIT_FSIZE. By one thread at a time.
 */
int haki_shared_begin(struct hak_shared *made, const struct hak_shared *beside,
                      size_t size);
int haki_shared_end(struct hak_shared *made, const struct hak_shared *beside,
                    const char *ending);

/* Removes the file's name; the memory stays. */
void haki_shared_unlink(struct hak_shared *shared);

/* What tells namespaces of process numbers apart; 0: unknown. */
uint64_t haki_shared_namespace(void);

#endif /* HAK_SHARED_H */
