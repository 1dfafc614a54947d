/*
 * hak_ngx_alloc.c - the allocation functions that chosen objects call.
 */
#include "hak_ngx.h"

#include <hakmem.h>

const hak_ngx_name hak_ngx_names[] = {{NULL, NULL}};

void hak_ngx_set_lanes(hak_ngx_lanes lanes)
{
    (void)lanes;
}
