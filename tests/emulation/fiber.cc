// fiber.cc -- switching stacks: on x86-64 by hand (a dozen instructions), elsewhere with ucontext, which makes two
// calls of the system each time. AddressSanitizer is told of each switch.
#include "emulation/fiber.h"
#include "emulation/sanitizer.h"
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <sys/mman.h>
#include <unistd.h>
#if defined(TV_EMULATION_ASAN)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace
{
__thread emulation::Fiber *running;

void before_switch([[maybe_unused]] void **fake, [[maybe_unused]] const void *stack,
                   [[maybe_unused]] size_t bytes)
{
#if defined(TV_EMULATION_ASAN)
    __sanitizer_start_switch_fiber(fake, stack, bytes);
#endif
}

void after_switch([[maybe_unused]] void *fake, [[maybe_unused]] const void **stack,
                  [[maybe_unused]] size_t *bytes)
{
#if defined(TV_EMULATION_ASAN)
    __sanitizer_finish_switch_fiber(fake, stack, bytes);
#endif
}
} // namespace

#if defined(__x86_64__)
// Keeps the registers that a function must keep, and exchanges the stack pointer.
extern "C" void tv_emulation_switch(void **save, void *load);
asm(R"(
    .text
    .globl tv_emulation_switch
    .hidden tv_emulation_switch
    .type tv_emulation_switch, @function
tv_emulation_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
    .size tv_emulation_switch, .-tv_emulation_switch
)");
#endif

namespace emulation
{
Fiber::Fiber()
{
    void *pages = mmap(nullptr, stack_bytes, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (pages == MAP_FAILED || mprotect(pages, (size_t)getpagesize(), PROT_NONE) != 0) {
        std::perror("emulation: no stack for a CUDA thread");
        std::abort();
    }
    stack = static_cast<char *>(pages);
}

Fiber::~Fiber()
{
    munmap(stack, stack_bytes);
}

void Fiber::prepare(const std::function<void()> *body_)
{
#if defined(TV_EMULATION_ASAN)
    if (!done)
        __asan_unpoison_memory_region(stack + getpagesize(), stack_bytes - (size_t)getpagesize());
#endif
    body = body_;
    done = false;
    here_fake = nullptr;
#if defined(__x86_64__)
    // As if run() had been called, and had then switched away: a return address, run, six registers.
    void **top = reinterpret_cast<void **>(stack + stack_bytes) - 1;
    *top = nullptr;
    *--top = reinterpret_cast<void *>(&Fiber::run);
    for (int i = 0; i < 6; i++)
        *--top = nullptr;
    here = top;
#else
    getcontext(&here);
    here.uc_stack.ss_sp = stack + getpagesize();
    here.uc_stack.ss_size = stack_bytes - (size_t)getpagesize();
    here.uc_link = nullptr;
    makecontext(&here, &Fiber::run, 0);
#endif
}

void Fiber::resume()
{
    running = this;
    before_switch(&caller_fake, stack, stack_bytes);
#if defined(__x86_64__)
    tv_emulation_switch(&caller, here);
#else
    swapcontext(&caller, &here);
#endif
    after_switch(caller_fake, nullptr, nullptr);
    running = nullptr;
}

void Fiber::suspend()
{
    Fiber *fiber = running;
    before_switch(fiber->done ? nullptr : &fiber->here_fake, fiber->caller_stack,
                  fiber->caller_bytes);
#if defined(__x86_64__)
    tv_emulation_switch(&fiber->here, fiber->caller);
#else
    swapcontext(&fiber->here, &fiber->caller);
#endif
    after_switch(fiber->here_fake, &fiber->caller_stack, &fiber->caller_bytes);
}

void Fiber::run()
{
    Fiber *fiber = running;
    after_switch(nullptr, &fiber->caller_stack, &fiber->caller_bytes);
    (*fiber->body)();
    fiber->done = true;
    suspend();
    std::abort(); // a fiber that is done is not resumed
}
} // namespace emulation
