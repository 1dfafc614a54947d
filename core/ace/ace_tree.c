/*
 * ace_tree.c - the treaps of ACE's holes.
 */
#include "ace/ace_tree.h"

/*
 * A hash that is a permutation, so no two pages have the same. A single odd
 * factor is not enough: holes at equal distances, which programs do leave,
 * would get priorities that rise and fall with their addresses, and the treap
 * would become a list.
 */
static uint32_t ace_priority(uint32_t page)
{
    page *= UINT32_C(0x9e3779b1);
    page = (page ^ page >> 16) * UINT32_C(0x85ebca6b);
    return page ^ page >> 15;
}

void haki_hole_insert(struct hak_holes *holes, uint32_t page)
{
    uint32_t pages = haki_ace_hole(page)->pages;
    uint32_t *link = &holes->roots[pages];
    uint32_t *left = &haki_ace_hole(page)->left;
    uint32_t *right = &haki_ace_hole(page)->right;
    uint32_t rest;

    HAK_ASSERT(page != 0 && pages > 0 && pages <= HAK_ACE_PAGES);
    holes->some[pages / 64] |= (uint64_t)1 << (pages % 64);
    while (*link != 0 && ace_priority(*link) > ace_priority(page)) {
        link = page < *link ? &haki_ace_hole(*link)->left
                            : &haki_ace_hole(*link)->right;
    }
    HAK_ASSERT(*link != page);
    /* Splits what hangs here into smaller and larger. */
    rest = *link;
    *link = page;
    while (rest != 0) {
        if (rest < page) {
            *left = rest;
            left = &haki_ace_hole(rest)->right;
            rest = *left;
        } else {
            *right = rest;
            right = &haki_ace_hole(rest)->left;
            rest = *right;
        }
    }
    *left = *right = 0;
}

void haki_hole_remove(struct hak_holes *holes, uint32_t page)
{
    uint32_t pages = haki_ace_hole(page)->pages;
    uint32_t left = haki_ace_hole(page)->left;
    uint32_t right = haki_ace_hole(page)->right;
    uint32_t *link = &holes->roots[pages];

    while (*link != page) {
        HAK_CHECK(*link != 0); /* it is in there */
        link = page < *link ? &haki_ace_hole(*link)->left
                            : &haki_ace_hole(*link)->right;
    }
    while (left != 0 && right != 0) {
        if (ace_priority(left) > ace_priority(right)) {
            *link = left;
            link = &haki_ace_hole(left)->right;
            left = *link;
        } else {
            *link = right;
            link = &haki_ace_hole(right)->left;
            right = *link;
        }
    }
    *link = left != 0 ? left : right;
    if (holes->roots[pages] == 0) {
        holes->some[pages / 64] &= ~((uint64_t)1 << (pages % 64));
    }
}

uint32_t haki_hole_best(const struct hak_holes *holes, uint32_t pages)
{
    uint64_t bits = holes->some[pages / 64] & (UINT64_MAX << (pages % 64));
    uint32_t page;

    for (pages /= 64; bits == 0;) {
        if (++pages > HAK_ACE_WORDS) {
            return 0;
        }
        bits = holes->some[pages];
    }
    page = holes->roots[pages * 64 + (uint32_t)__builtin_ctzll(bits)];
    HAK_ASSERT(page != 0);
    while (haki_ace_hole(page)->left != 0) {
        page = haki_ace_hole(page)->left;
    }
    return page;
}
