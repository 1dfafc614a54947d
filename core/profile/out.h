/*
 * out.h - text and bytes that are being put together, in memory of their own.
 *
 * A profile is written by a program that may be out of memory or inside its
 * allocator's statistics: so nothing is allocated but by the os.
 */
#ifndef HAK_OUT_H
#define HAK_OUT_H

#include "base/base.h"

struct hak_out {
    char *at;
    size_t used, room;
    bool full; /* there was no memory: what follows is dropped */
};

void haki_out_bytes(struct hak_out *out, const void *bytes, size_t n);
void haki_out_text(struct hak_out *out, const char *text);
void haki_out_number(struct hak_out *out, uint64_t n);

/* "text", as JSON and JavaScript in a page have it. */
void haki_out_quoted(struct hak_out *out, const char *text);

/* A varint of protobuf; a field of that type, of bytes. */
void haki_out_varint(struct hak_out *out, uint64_t n);
void haki_out_field(struct hak_out *out, unsigned field, uint64_t n);
void haki_out_field_bytes(struct hak_out *out, unsigned field,
                          const void *bytes, size_t n);

/* All of `from` as a gzip file, without compression. */
void haki_out_gzip(struct hak_out *out, const struct hak_out *from);

/* Writes it to a file; false: errno says why. */
bool haki_out_write(const struct hak_out *out, int fd);

void haki_out_drop(struct hak_out *out);

#endif /* HAK_OUT_H */
