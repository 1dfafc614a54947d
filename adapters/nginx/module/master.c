
/*
 * master.c - frees go by address in the process that reads the configuration,
 * too.
 *
 * It has no block of ours, but what runs in it may look free up by its name and
 * keep the address, and workers are its copies: LuaJIT does so, when a script of
 * init_by_lua calls ffi.C.free. So everybody is given ours from the moment that
 * the module is loaded, and what is loaded after it before its dlopen returns.
 * To a block that is not ours it costs a subtraction and a compare.
 */


#include <module/module.h>
#include <patch/patch.h>


/*
 * Before the directives are known. What can't be patched, workers will say;
 * signallers load nothing that could run.
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
