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

#endif /* HAK_PROFILING_H */
