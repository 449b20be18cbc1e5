// fiber.h -- a function with a stack of its own that can stop in the middle and go on later, on one thread of the host.
#ifndef TV_TESTS_EMULATION_FIBER_H
#define TV_TESTS_EMULATION_FIBER_H
#include <cstddef>
#include <functional>
#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace emulation
{
class Fiber
{
  public:
    Fiber();
    ~Fiber();
    Fiber(const Fiber &) = delete;
    Fiber &operator=(const Fiber &) = delete;
    // Makes ready to run `body` from its start; what the fiber did before is given up.
    void prepare(const std::function<void()> *body);
    void resume();         // by the host thread: until the fiber suspends or its body returns
    static void suspend(); // by the fiber
    bool is_done() const
    {
        return done;
    }

  private:
    static void run();
    static constexpr size_t stack_bytes = 256 * 1024;
    const std::function<void()> *body = nullptr;
    bool done = true;
    char *stack;
#if defined(__x86_64__)
    void *here = nullptr, *caller = nullptr; // stack pointers of the side that does not run
#else
    ucontext_t here, caller;
#endif
    void *here_fake = nullptr, *caller_fake = nullptr; // AddressSanitizer's
    const void *caller_stack = nullptr;
    size_t caller_bytes = 0;
};
} // namespace emulation
#endif
