/*
 * rows.h - what an object's .eh_frame says of an address of code: of a frame that goes
 * on there, where it ends and where its caller's registers are.
 *
 * Names are those of DWARF 5, 6.4, and of the Linux Standard Base on .eh_frame: a table
 * with a row for each address, kept as a program that makes the rows of one function, an
 * FDE; what several functions begin with is in a CIE.
 *
 * Only what compilers write for usual functions on x86-64 is understood. Nothing beyond
 * both entries is read, whatever is in them.
 */
#ifndef HAK_ROWS_H
#define HAK_ROWS_H

#include <string.h>

#include "base/base.h"

/* Registers, as DWARF counts them. */
enum { HAK_REGISTER_BP = 6, HAK_REGISTER_SP = 7, HAK_REGISTER_RA = 16 };

enum hak_row_how {
    HAK_ROW_SAME,
    HAK_ROW_SAVED,
    HAK_ROW_UNDEFINED,
    HAK_ROW_OTHER
};
struct hak_row_rule {
    enum hak_row_how how;
    int64_t at; /* HAK_ROW_SAVED: from the CFA */
};

/* The CFA, where the frame ends, is `cfa` above a register. Rules of the registers that
 * matter; all others' share one. */
struct hak_row {
    uint64_t cfa_register; /* UINT64_MAX: none, an expression */
    int64_t cfa;
    struct hak_row_rule bp, sp, ra, any;
};

/* The row of address `at`. False: it is not the FDE's, or not understood. */
bool haki_row_read(const unsigned char *fde, const unsigned char *cie,
                   uintptr_t at, struct hak_row *row);

/* 4 bytes of such an entry: the first are how many follow. */
HAK_INLINE uint32_t haki_row_u32(const unsigned char *at)
{
    uint32_t n;

    memcpy(&n, at, sizeof(n));
    return n;
}

#endif /* HAK_ROWS_H */
