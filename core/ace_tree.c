/*
 * ace_tree.c - the treap of ACE's holes.
 */
#include "ace_tree.h"

/*
 * A hash that is a permutation, so no two pages have the same. One odd factor
 * alone will not do: holes at equal distances, which programs do leave, then
 * have priorities that rise and fall with their addresses, and the treap
 * becomes a list.
 */
static uint32_t priority(uint32_t page)
{
    page *= UINT32_C(0x9e3779b1);
    page = (page ^ page >> 16) * UINT32_C(0x85ebca6b);
    return page ^ page >> 15;
}

static bool less(uint32_t a, uint32_t b)
{
    uint32_t a_pages = hak_ace_hole(a)->pages;
    uint32_t b_pages = hak_ace_hole(b)->pages;

    return a_pages != b_pages ? a_pages < b_pages : a < b;
}

void hak_hole_insert(uint32_t *root, uint32_t page)
{
    uint32_t *link = root;
    uint32_t *left = &hak_ace_hole(page)->left;
    uint32_t *right = &hak_ace_hole(page)->right;
    uint32_t rest;

    while (*link != 0 && priority(*link) > priority(page)) {
        link = less(page, *link) ? &hak_ace_hole(*link)->left
                                 : &hak_ace_hole(*link)->right;
    }
    /* What hangs here is split into what is less and what is not. */
    rest = *link;
    *link = page;
    while (rest != 0) {
        if (less(rest, page)) {
            *left = rest;
            left = &hak_ace_hole(rest)->right;
            rest = *left;
        } else {
            *right = rest;
            right = &hak_ace_hole(rest)->left;
            rest = *right;
        }
    }
    *left = *right = 0;
}

void hak_hole_remove(uint32_t *root, uint32_t page)
{
    uint32_t left = hak_ace_hole(page)->left;
    uint32_t right = hak_ace_hole(page)->right;
    uint32_t *link = root;

    while (*link != page) {
        link = less(page, *link) ? &hak_ace_hole(*link)->left
                                 : &hak_ace_hole(*link)->right;
    }
    while (left != 0 && right != 0) {
        if (priority(left) > priority(right)) {
            *link = left;
            link = &hak_ace_hole(left)->right;
            left = *link;
        } else {
            *link = right;
            link = &hak_ace_hole(right)->left;
            right = *link;
        }
    }
    *link = left != 0 ? left : right;
}

uint32_t hak_hole_best(uint32_t root, uint32_t pages)
{
    uint32_t best = 0;

    while (root != 0) {
        struct hak_hole *hole = hak_ace_hole(root);

        if (hole->pages >= pages) {
            best = root;
            root = hole->left;
        } else {
            root = hole->right;
        }
    }
    return best;
}
