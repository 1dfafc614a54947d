/*
 * oldest.h - for what is built once and carried to many systems (wheels): nothing of
 * glibc newer than 2.28 is asked for, whichever it is built with.
 *
 * Layer: base. Included before everything else by the compiler's -include, where
 * hakmem_py is built (setup.py), and by no file. What it is compiled into must be loaded
 * into programs that have libpthread and libdl, as every Python does; and it can't
 * define the functions below, as libhakmem.so does.
 *
 * glibc 2.32 to 2.34 gave functions that it always had new versions, as they moved
 * from libpthread and libdl to libc. Their old ones stay; a reference that names one
 * is served by both. stat and its like were inline before 2.33.
 */
#ifndef HAKI_OLDEST_H
#define HAKI_OLDEST_H

#include <features.h>

#if defined(__GLIBC__) && (defined(__x86_64__) || defined(__aarch64__))
#include <sys/stat.h>

#ifdef __x86_64__
#define HAKI_OLD(name) __asm__(".symver " #name "," #name "@GLIBC_2.2.5")
#define HAKI_OLD_STAT 1
#else
#define HAKI_OLD(name) __asm__(".symver " #name "," #name "@GLIBC_2.17")
#define HAKI_OLD_STAT 0
#endif

HAKI_OLD(dladdr);
#ifdef __x86_64__
__asm__(".symver dladdr1,dladdr1@GLIBC_2.3.3");
#else
HAKI_OLD(dladdr1);
#endif
HAKI_OLD(dlsym);
HAKI_OLD(dlvsym);
HAKI_OLD(pthread_attr_setstacksize);
HAKI_OLD(pthread_create);
HAKI_OLD(pthread_key_create);
HAKI_OLD(pthread_once);
HAKI_OLD(pthread_setspecific);
#ifdef __x86_64__
__asm__(".symver pthread_setname_np,pthread_setname_np@GLIBC_2.12");
#else
HAKI_OLD(pthread_setname_np);
#endif
HAKI_OLD(pthread_sigmask);
HAKI_OLD(__fxstat);
HAKI_OLD(__lxstat);
HAKI_OLD(__xstat);

int __fxstat(int version, int fd, struct stat *about);
int __lxstat(int version, const char *path, struct stat *about);
int __xstat(int version, const char *path, struct stat *about);

#define fstat(fd, about) __fxstat(HAKI_OLD_STAT, fd, about)
#define lstat(path, about) __lxstat(HAKI_OLD_STAT, path, about)
#define stat(path, about) __xstat(HAKI_OLD_STAT, path, about)

/* Of glibc 2.32: what asks for it does without. */
#define HAKI_OLDEST_GLIBC 1
#endif

#endif
