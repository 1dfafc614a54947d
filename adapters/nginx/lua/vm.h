/*
 * vm.h - a heap of ours for each Lua VM of nginx's Lua modules.
 *
 * Independent of nginx and of Lua's headers. A Lua module makes its VM by luaL_newstate,
 * a slot of its own (patch/slots.h). Ours calls lua_newstate of the same library, found
 * by name, with an allocator on a heap that ends with the VM. The VM is made where the
 * configuration is read, and workers are copies of that process.
 *
 * Accounting is in bytes that Lua asked for. LuaJIT does not collect when memory is
 * refused, and nginx's Lua module aborts the process then. So a script is stopped before,
 * at its next instruction, by a count hook, in which everything is allowed:
 *
 *     live > soft          the collector is due at once and works fast; again for each
 *                          sixteenth of the limit; `need` is called
 *     live > limit         the collector does its work at once, which makes compiled code
 *                          go back to the interpreter, where the hook collects what is
 *                          left; if that does not help, it raises "not enough memory"
 *     live > 3/2 limit     refused: a single function of C's has asked for all that
 *
 * VMs that other threads have made (ngx.run_worker_thread) have heaps and limits, too;
 * they are not collected.
 */
#ifndef HAK_NGX_VM_H
#define HAK_NGX_VM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct hak_ngx_vm_stats {
    size_t live_bytes; /* of all VMs of the process, as Lua counts */
    size_t peak_bytes; /* the most that each has had, summed */
    uint64_t calls;
    uint64_t limit_refusals;
    uint64_t collections; /* that hak_ngx_vm_collect made */
} hak_ngx_vm_stats;

void hak_ngx_vm_get_stats(hak_ngx_vm_stats *stats);

/* VMs made from now on are ours, or are not. */
void hak_ngx_vm_enable(bool on);

/* Bytes of each VM, 0: none. For those that exist as well. */
void hak_ngx_vm_limit(size_t soft, size_t limit);

/* Called inside an allocation of the process's main thread. */
void hak_ngx_vm_on_need(void (*need)(void));

/* Takes the slots of Lua modules that are loaded; how many are ours in all. */
unsigned hak_ngx_vm_patch(void);

/*
 * The main thread's VMs are not running: collects all garbage of those that have grown by
 * `least` bytes and by a half since the last time, and gives back idle memory. Bytes
 * that were freed. `wanted`: whether there is such a VM; nothing is done.
 */
size_t hak_ngx_vm_collect(size_t least);
bool hak_ngx_vm_wanted(size_t least);

#endif /* HAK_NGX_VM_H */
