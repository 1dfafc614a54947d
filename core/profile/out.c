/*
 * out.c - text and bytes that are being put together: see out.h.
 *
 * Tested by tests/unit/profile/written.c.
 */
#include "profile/out.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "os/os.h"

#define OUT_FIRST (64 * HAK_KIB)

/* A stored block of deflate's is of so many bytes at the most. */
#define OUT_STORED_MOST ((size_t)65535)

static bool out_grow(struct hak_out *out, size_t n)
{
    size_t room = haki_max(out->room, OUT_FIRST);
    char *at;

    while (room - out->used < n) {
        room *= 2;
    }
    if (room == out->room) {
        return true;
    }
    at = haki_os_map(room);
    if (at == NULL) {
        out->full = true;
        return false;
    }
    if (out->at != NULL) {
        memcpy(at, out->at, out->used);
        haki_os_unmap(out->at, out->room);
    }
    out->at = at;
    out->room = room;
    return true;
}

void haki_out_bytes(struct hak_out *out, const void *bytes, size_t n)
{
    if (n > 0 && !out->full && out_grow(out, n)) {
        memcpy(out->at + out->used, bytes, n);
        out->used += n;
    }
}

void haki_out_text(struct hak_out *out, const char *text)
{
    haki_out_bytes(out, text, strlen(text));
}

void haki_out_number(struct hak_out *out, uint64_t n)
{
    char digits[20];
    size_t at = sizeof(digits);

    do {
        digits[--at] = (char)('0' + n % 10);
        n /= 10;
    } while (n != 0);
    haki_out_bytes(out, digits + at, sizeof(digits) - at);
}

void haki_out_quoted(struct hak_out *out, const char *text)
{
    static const char hex[] = "0123456789abcdef";

    haki_out_text(out, "\"");
    for (; *text != '\0'; text++) {
        unsigned char c = (unsigned char)*text;
        char escaped[6] = {'\\', 'u', '0', '0', hex[c >> 4], hex[c & 15]};

        /* '<' and what is no ASCII too: a page may say what it likes. */
        if (c < ' ' || c == '"' || c == '\\' || c == '<' || c >= 0x7f) {
            haki_out_bytes(out, escaped, sizeof(escaped));
        } else {
            haki_out_bytes(out, text, 1);
        }
    }
    haki_out_text(out, "\"");
}

void haki_out_varint(struct hak_out *out, uint64_t n)
{
    unsigned char bytes[10];
    size_t used = 0;

    for (; n >= 0x80; n >>= 7) {
        bytes[used++] = (unsigned char)(n | 0x80);
    }
    bytes[used++] = (unsigned char)n;
    haki_out_bytes(out, bytes, used);
}

void haki_out_field(struct hak_out *out, unsigned field, uint64_t n)
{
    haki_out_varint(out, field << 3);
    haki_out_varint(out, n);
}

void haki_out_field_bytes(struct hak_out *out, unsigned field,
                          const void *bytes, size_t n)
{
    haki_out_varint(out, field << 3 | 2);
    haki_out_varint(out, n);
    haki_out_bytes(out, bytes, n);
}

static uint32_t out_crc(const char *bytes, size_t n)
{
    uint32_t table[256], crc = UINT32_MAX;

    for (uint32_t i = 0; i < 256; i++) {
        table[i] = i;
        for (int bit = 0; bit < 8; bit++) {
            table[i] = table[i] >> 1 ^ ((table[i] & 1) != 0 ? 0xedb88320u : 0);
        }
    }
    for (size_t i = 0; i < n; i++) {
        crc = crc >> 8 ^ table[(crc ^ (unsigned char)bytes[i]) & 0xff];
    }
    return ~crc;
}

/* The lowest `n` bytes of a number, the least significant first. */
static void out_little(struct hak_out *out, uint64_t number, size_t n)
{
    unsigned char bytes[8];

    for (size_t i = 0; i < n; i++) {
        bytes[i] = (unsigned char)(number >> 8 * i);
    }
    haki_out_bytes(out, bytes, n);
}

void haki_out_gzip(struct hak_out *out, const struct hak_out *from)
{
    static const unsigned char head[10] = {0x1f, 0x8b, 8, [9] = 255};
    size_t done = 0, n;

    haki_out_bytes(out, head, sizeof(head));
    do {
        n = haki_min(from->used - done, OUT_STORED_MOST);
        out_little(out, done + n == from->used, 1);
        out_little(out, n, 2);
        out_little(out, ~(uint64_t)n, 2);
        haki_out_bytes(out, from->at + done, n);
        done += n;
    } while (done < from->used);
    out_little(out, out_crc(from->at, from->used), 4);
    out_little(out, from->used, 4);
    out->full |= from->full;
}

bool haki_out_write(const struct hak_out *out, int fd)
{
    size_t done = 0;

    if (out->full) {
        errno = ENOMEM;
        return false;
    }
    while (done < out->used) {
        ssize_t n = write(fd, out->at + done, out->used - done);

        if (n < 0 && errno != EINTR) {
            return false;
        }
        done += n > 0 ? (size_t)n : 0;
    }
    return true;
}

void haki_out_drop(struct hak_out *out)
{
    if (out->at != NULL) {
        haki_os_unmap(out->at, out->room);
    }
    *out = (struct hak_out){NULL, 0, 0, false};
}
