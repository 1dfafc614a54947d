/*
 * msg.h - one-line messages to standard error, without allocating.
 *
 * Every message is one line "hakmem: ..." written by one write(2).
 */
#ifndef HAK_MSG_H
#define HAK_MSG_H

#include "base/base.h"

/* Writes the text as it is, with no prefix, and a newline. */
void haki_msg_raw(const char *format, ...) HAK_PRINTF(1, 2);

/* Writes "hakmem: " and the text. The program goes on. */
HAK_COLD void haki_warn(const char *format, ...) HAK_PRINTF(1, 2);

/*
 * Writes a text of any length as it is, to any descriptor, in as many calls as
 * it takes. What can't be written is lost. errno is kept. No message is a
 * cancellation point.
 */
void haki_msg_write(int fd, const char *text, size_t length);

/* Whether any thread is writing a message (it may be blocked on the reader). */
bool haki_msg_any_writes(void);

/* Writes "hakmem: fatal: " and the text, then aborts. */
HAK_COLD _Noreturn void haki_fatal(const char *format, ...) HAK_PRINTF(1, 2);

/*
 * Keeps a copy of standard error for messages at the program's end. Many
 * programs close it before that, and what they then open may get its number:
 * messages must not be written there.
 */
void haki_msg_keep(void);

/* Where to write: standard error, the copy of it, or -1. */
int haki_msg_fd(void);

#endif /* HAK_MSG_H */
