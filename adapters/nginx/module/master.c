
/*
 * master.c - makes frees in the process that reads the configuration go by
 * address, too.
 *
 * That process has no blocks of ours, but code that runs in it may look up free
 * by name and keep the address, and workers are its copies: LuaJIT does that
 * when a script of init_by_lua calls ffi.C.free. So all objects get our free
 * from the moment the module is loaded, and objects loaded later get it before
 * their dlopen returns. For a block that is not ours this costs a subtraction
 * and a compare.
 */


#include <module/module.h>
#include <patch/patch.h>


/*
 * Runs before the directives are known. Workers will report what can't be
 * patched; "nginx -s" processes load nothing that could run.
 */

void
ngx_hakmem_master_begin(void)
{
    char  why[128];

    if (ngx_process != NGX_PROCESS_SIGNALLER) {
        (void) hak_ngx_patch(NULL, 0, why, sizeof(why));
    }
}


/* no worker of this configuration will be served by the module */

void
ngx_hakmem_master_undo(void)
{
    if (ngx_hakmem_worker.state != NGX_HAKMEM_MODULE) {
        hak_ngx_unpatch();
    }
}
