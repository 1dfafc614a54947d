/*
 * hak_py_loan.c - the GIL's heap in the hands of a thread without the GIL.
 *
 * Whoever holds the GIL may be in the heap, at any instruction; who does not is
 * not. A thread that would ask for the GIL might wait for it while its holder
 * waits for that thread (to fork, to end the interpreter). So it asks for
 * nothing: it sends all that come to the slow paths, where they wait for `lock`,
 * and then looks whether somebody holds the GIL.
 *
 *     borrower: lent = true, hot = hak_py_lent; barrier; is the GIL held?
 *     others:   take the GIL; read hot, or lent in slow paths
 *
 * Either a holder is seen here, and the loan is off, or the holder sees that the
 * heap is lent. The GIL's own functions have no barrier between their word and
 * what follows on every machine: membarrier makes one in all running threads. A
 * second one makes visible here what the last holder wrote, who may have said
 * that the GIL is free before.
 */
#include <errno.h>
#include <linux/membarrier.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "hak_py.h"

static void mend(void);

/* Who has the heap on loan, or is about to. */
static hak_lock lock = HAK_LOCK_INIT(mend);

static void swap(unsigned which, struct hak_heap *from, struct hak_heap *to)
{
    /* Whoever has set it meanwhile (a limit, hak_py_share) has the last word. */
    __atomic_compare_exchange_n(&hak_py.domains[which].hot, &from, to, false,
                                __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}

static void lend(void)
{
    struct hak_heap *heap = hak_py.heap;

    atomic_store(&hak_py.lent, true);
    if (heap != NULL) {
        swap(HAK_PY_MEM, heap, (void *)hak_py_lent);
        swap(HAK_PY_OBJ, heap, (void *)hak_py_lent);
    }
}

static void take_back(void)
{
    struct hak_heap *heap = hak_py.heap;

    swap(HAK_PY_MEM, (void *)hak_py_lent, heap);
    swap(HAK_PY_OBJ, (void *)hak_py_lent, heap);
    atomic_store(&hak_py.lent, false);
}

/*
 * In a child whose parent forked while a thread had the heap, which does not
 * exist here: the heap may be half changed. It is left alone, and each thread
 * works on its own from here on.
 */
static void mend(void)
{
    if (atomic_load(&hak_py.lent)) {
        __atomic_store_n(&hak_py.heap, NULL, __ATOMIC_SEQ_CST);
        hak_py_share();
        atomic_store(&hak_py.lent, false);
    }
}

void hak_py_loan_await(void)
{
    haki_lock_take(&lock);
    haki_lock_drop(&lock);
}

/* A full barrier in every thread of the process; false: it can't be had. */
static bool fence(void)
{
    atomic_thread_fence(memory_order_seq_cst);
    if (syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0) == 0) {
        return true;
    }
    if (errno == EPERM &&
        syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0) ==
            0 &&
        syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0) == 0) {
        return true;
    }
#if defined(__x86_64__)
    return true; /* the mutexes that the GIL is made of are barriers */
#else
    return false;
#endif
}

bool hak_py_loan_begin(void)
{
    if (hak_py_gil_is_held() || atomic_load(&hak_py.shared)) {
        return false;
    }
    haki_lock_take(&lock);
    lend();
    if (fence() && !hak_py_gil_is_held() && !atomic_load(&hak_py.shared) &&
        hak_py.heap != NULL && fence()) {
        return true;
    }
    hak_py_loan_end();
    return false;
}

void hak_py_loan_end(void)
{
    take_back();
    haki_lock_drop(&lock);
}
