/*
 * rows.c - what .eh_frame says of an address: see rows.h.
 *
 * Tested by tests/unit/profile/unwind.c.
 */
#include "profile/rows.h"

struct rows_reader {
    const unsigned char *at, *end;
    bool bad; /* it has ended too early, or has what we don't know */
};

static uint64_t rows_bytes(struct rows_reader *in, size_t n)
{
    uint64_t value = 0;

    if ((size_t)(in->end - in->at) < n) {
        in->bad = true;
        in->at = in->end;
        return 0;
    }
    memcpy(&value, in->at, haki_min(n, sizeof(value)));
    in->at += n;
    return value;
}

/* LEB128; `sign`: of a signed one. */
static int64_t rows_leb(struct rows_reader *in, bool sign)
{
    uint64_t value = 0, byte;
    unsigned shift = 0;

    do {
        byte = rows_bytes(in, 1);
        value |= (byte & 127) << shift;
        shift += 7;
    } while ((byte & 128) != 0 && shift < 63);
    if (sign && (byte & 64) != 0) {
        value |= UINT64_MAX << shift;
    }
    return (int64_t)value;
}

/* A number that the table has divided by `factor`; a damaged one may wrap around. */
static int64_t rows_factored(struct rows_reader *in, int64_t factor)
{
    return (int64_t)((uint64_t)rows_leb(in, false) * (uint64_t)factor);
}

static void rows_skip(struct rows_reader *in, uint64_t n)
{
    rows_bytes(in, (size_t)n);
}

struct rows_program {
    struct rows_reader in;
    struct hak_row row;
    const struct hak_row *first; /* as the CIE has left it; NULL: this is it */
    int64_t code, data;          /* factors */
    uint64_t at, target;         /* both from the function's beginning */
    struct hak_row kept[4];
    unsigned depth;
};

static struct hak_row_rule *rows_rule(struct hak_row *row, uint64_t n)
{
    return n == HAK_REGISTER_BP   ? &row->bp
           : n == HAK_REGISTER_SP ? &row->sp
           : n == HAK_REGISTER_RA ? &row->ra
                                  : &row->any;
}

static void rows_set(struct rows_program *program, uint64_t n,
                     enum hak_row_how how, int64_t at)
{
    *rows_rule(&program->row, n) = (struct hak_row_rule){how, at};
}

static void rows_restore(struct rows_program *program, uint64_t n)
{
    struct hak_row first;

    if (program->first == NULL) {
        program->in.bad = true;
        return;
    }
    first = *program->first;
    *rows_rule(&program->row, n) = *rows_rule(&first, n);
}

/* DW_CFA_remember_state, DW_CFA_restore_state. */
static void rows_remember(struct rows_program *program)
{
    if (program->depth < sizeof(program->kept) / sizeof(program->kept[0])) {
        program->kept[program->depth++] = program->row;
    } else {
        program->in.bad = true;
    }
}

static void rows_recall(struct rows_program *program)
{
    if (program->depth > 0) {
        program->row = program->kept[--program->depth];
    } else {
        program->in.bad = true;
    }
}

static void rows_cfa(struct rows_program *program, uint64_t n, int64_t at)
{
    program->row.cfa_register = n;
    program->row.cfa = at;
}

/* An instruction that is not one of the three with an operand in it. */
static void rows_other(struct rows_program *program, unsigned op)
{
    struct rows_reader *in = &program->in;
    struct hak_row *row = &program->row;
    uint64_t n;

    switch (op) {
    case 0x00: /* nop */ break;
    case 0x02: /* advance_loc1, 2, 4 */
    case 0x03:
    case 0x04:
        program->at += rows_bytes(in, 1u << (op - 2)) * (uint64_t)program->code;
        break;
    case 0x05: /* offset_extended */
        n = (uint64_t)rows_leb(in, false);
        rows_set(program, n, HAK_ROW_SAVED, rows_factored(in, program->data));
        break;
    case 0x06: /* restore_extended */
        rows_restore(program, (uint64_t)rows_leb(in, false));
        break;
    case 0x07: /* undefined */
    case 0x08: /* same_value */
        rows_set(program, (uint64_t)rows_leb(in, false),
                 op == 7 ? HAK_ROW_UNDEFINED : HAK_ROW_SAME, 0);
        break;
    case 0x0a: rows_remember(program); break;
    case 0x0b: rows_recall(program); break;
    case 0x0c: /* def_cfa */
        n = (uint64_t)rows_leb(in, false);
        rows_cfa(program, n, rows_leb(in, false));
        break;
    case 0x0d: /* def_cfa_register */
        row->cfa_register = (uint64_t)rows_leb(in, false);
        break;
    case 0x0e: /* def_cfa_offset */ row->cfa = rows_leb(in, false); break;
    case 0x0f: /* def_cfa_expression */
        rows_cfa(program, UINT64_MAX, 0);
        rows_skip(in, (uint64_t)rows_leb(in, false));
        break;
    case 0x10: /* expression */
    case 0x16: /* val_expression */
        rows_set(program, (uint64_t)rows_leb(in, false), HAK_ROW_OTHER, 0);
        rows_skip(in, (uint64_t)rows_leb(in, false));
        break;
    case 0x2e: /* GNU_args_size */ rows_leb(in, false); break;
    default: in->bad = true;
    }
}

/* To the row of the target. */
static bool rows_run(struct rows_program *program)
{
    struct rows_reader *in = &program->in;

    while (in->at < in->end && !in->bad && program->at <= program->target) {
        unsigned op = (unsigned)rows_bytes(in, 1), low = op & 63;

        switch (op >> 6) {
        case 1: program->at += low * (uint64_t)program->code; break;
        case 2:
            rows_set(program, low, HAK_ROW_SAVED,
                     rows_factored(in, program->data));
            break;
        case 3: rows_restore(program, low); break;
        default: rows_other(program, op);
        }
    }
    return !in->bad;
}

/* What comes before the instructions of a CIE: only what compilers write for the usual
 * functions. */
static bool rows_read_cie(struct rows_program *program,
                          const unsigned char *cie)
{
    struct rows_reader *in = &program->in;
    const unsigned char *text, *data;
    uint64_t version;

    *in = (struct rows_reader){cie + 4, cie + 4 + haki_row_u32(cie), false};
    if (rows_bytes(in, 4) != 0) {
        return false;
    }
    version = rows_bytes(in, 1);
    text = in->at;
    while (rows_bytes(in, 1) != 0) {
    }
    program->code = rows_leb(in, false);
    program->data = rows_leb(in, true);
    if ((version != 1 && version != 3) || text[0] != 'z' ||
        rows_leb(in, false) != HAK_REGISTER_RA) {
        return false;
    }
    data = in->at + 1;
    rows_skip(in, (uint64_t)rows_leb(in, false));
    for (text++; *text != '\0' && !in->bad; text++) {
        if (data >= in->end) {
            return false;
        }
        if (*text == 'R' && *data++ == 0x1b) { /* 4 bytes, from here */
            continue;
        }
        if (*text == 'L') {
            data++;
        } else if (*text == 'P' && (*data & 15) == 11) { /* 4 bytes */
            data += 5;
        } else {
            return false; /* a signal's, or not known */
        }
    }
    return !in->bad && data <= in->end;
}

bool haki_row_read(const unsigned char *fde, const unsigned char *cie,
                   uintptr_t at, struct hak_row *row)
{
    struct rows_program program;
    uintptr_t begin =
        (uintptr_t)(fde + 8) + (uintptr_t)(int32_t)haki_row_u32(fde + 8);
    struct hak_row first;

    memset(&program, 0, sizeof(program));
    program.row.cfa_register = UINT64_MAX;
    program.target = UINT64_MAX;
    if (at - begin >= haki_row_u32(fde + 12) || haki_row_u32(fde) < 13 ||
        !rows_read_cie(&program, cie) || !rows_run(&program)) {
        return false;
    }
    first = program.row;
    program.first = &first;
    program.target = at - begin;
    program.at = 0;
    program.in =
        (struct rows_reader){fde + 16, fde + 4 + haki_row_u32(fde), false};
    rows_skip(&program.in, (uint64_t)rows_leb(&program.in, false));
    if (!rows_run(&program)) {
        return false;
    }
    *row = program.row;
    return true;
}
