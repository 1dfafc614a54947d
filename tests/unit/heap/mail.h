/*
 * mail.h - where threads that run at once meet, and what they leave for each other:
 * for thread.c and thread_fork.c.
 */
#ifndef MAIL_H
#define MAIL_H

#include "unit.h"

static pthread_barrier_t barrier;

enum { MAIL = 4096 };
static _Atomic(void *) mail[MAIL];

#endif
