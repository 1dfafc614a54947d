/*
 * hak_py_loan.c - lends the GIL's heap to a thread without the GIL.
 *
 * The holder of the GIL may be using the heap, at any instruction; nobody else
 * is. If the borrower asked for the GIL it might wait for it while the GIL's
 * holder waits for the borrower (to fork, to end the interpreter). So it
 * doesn't: it diverts everybody to the slow paths, where they wait for `lock`,
 * and then checks whether somebody holds the GIL.
 *
 *     borrower: lent = true, hot = hak_py_lent; barrier; is the GIL held?
 *     others:   take the GIL; read hot, or lent in slow paths
 *
 * Either the borrower sees a holder, and gives up, or the holder sees that the
 * heap is lent. Not on every machine do the GIL's own functions have a barrier
 * between writing their word and what follows, so membarrier makes one in all
 * running threads. A second one makes visible here what the last holder wrote,
 * who may have marked the GIL as free before that.
 */
#include <errno.h>
#include <linux/membarrier.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "hak_py.h"

static void mend(void);

/* Held by the thread that borrows the heap, or is about to. */
static hak_lock lock = HAK_LOCK_INIT(mend);

static void swap(unsigned which, struct hak_heap *from, struct hak_heap *to)
{
    /* If something else has set it meanwhile (a limit, hak_py_share) that
     * prevails. */
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
 * In a child that was forked while a thread was borrowing the heap: that thread
 * does not exist here, and the heap may be half changed. It is left alone, and
 * each thread works on its own heap from here on.
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

/* A full barrier in every thread of the process; false: not available. */
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
