/*
 * profiling.h - the profile that the environment asks for: HAKMEM_PROFILE.
 *
 * What hakmem.h declares of profiles is defined in profiling.c.
 */
#ifndef HAK_PROFILING_H
#define HAK_PROFILING_H

/*
 * Writes it, if one is asked for; once in a process, a forked child if the file's name
 * has %p. Called when the program ends or the library is unloaded.
 */
void haki_profiling_at_end(void);

/*
 * Writes it now, and not at the end, unless this is called again: for an adapter whose
 * runtime is about to free all that it has.
 */
void haki_profiling_write_now(void);

struct hak_stacks;

/*
 * Writes a copy of the stacks (profile/copies.h) and drops it; else as
 * hak_profile_write_fd, whose formats these are.
 */
int haki_profiling_write(struct hak_stacks *stacks, int fd, int format);

#endif /* HAK_PROFILING_H */
