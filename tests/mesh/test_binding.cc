/* tests/mesh/test_binding.cc -- shares of CPUs on made-up machines (rows B50, B51 of docs/faults.md), and what the
 * kernel says of this one. */
#include "mesh/binding.h"
#include "mesh/ranks.h"
#include <fstream>
#include <sched.h>
#include <set>
#include <string>

using Shares = std::vector<struct tv_bind_share>;

static Shares plan(const std::vector<struct tv_cpu> &cpus, int num_ranks,
                   const std::vector<int> &wishes = {})
{
    Shares shares((size_t)num_ranks);
    EXPECT_EQ(TV_OK, tv_binding_plan((int)cpus.size(), cpus.data(), num_ranks,
                                     wishes.empty() ? nullptr : wishes.data(), shares.data()));
    return shares;
}

static std::vector<struct tv_cpu> machine(const char *synthetic)
{
    struct tv_machine read = {};
    EXPECT_EQ(TV_OK, tv_machine_read(synthetic, &read)) << tv_error_message();
    std::vector<struct tv_cpu> cpus(read.cpus, read.cpus + read.num_cpus);
    tv_machine_free(&read);
    return cpus;
}

static std::string text(const struct tv_cpu_mask &mask)
{
    char words[256];
    tv_cpu_mask_text(&mask, words, sizeof(words));
    return words;
}

static std::vector<std::string> texts(const Shares &shares)
{
    std::vector<std::string> all;
    for (const struct tv_bind_share &share : shares)
        all.push_back(text(share.cpus));
    return all;
}

static bool is_disjoint(const Shares &shares)
{
    std::set<int> taken;
    for (const struct tv_bind_share &share : shares) {
        for (int cpu = 0; cpu < TV_MAX_CPUS; cpu++) {
            if (tv_cpu_mask_has(&share.cpus, cpu) && !taken.insert(cpu).second)
                return false;
        }
    }
    return true;
}

using Texts = std::vector<std::string>;

TEST(CpuMask, TextIsTheKernels)
{
    struct tv_cpu_mask mask = {};
    EXPECT_EQ("", text(mask));
    for (const int cpu : {0, 1, 2, 5, 63, 64, 8191})
        tv_cpu_mask_add(&mask, cpu);
    tv_cpu_mask_add(&mask, 8192); /* beyond: ignored */
    tv_cpu_mask_add(&mask, -1);
    EXPECT_EQ("0-2,5,63-64,8191", text(mask));
    EXPECT_EQ(7, tv_cpu_mask_count(&mask));
    EXPECT_FALSE(tv_cpu_mask_has(&mask, 8192));
    char words[8];
    tv_cpu_mask_text(&mask, words, sizeof(words));
    EXPECT_STREQ("0-2,5,6", words);
}

TEST(BindingPlan, B50FourRanksOnFourCpus)
{
    EXPECT_EQ((Texts{"0", "1", "2", "3"}), texts(plan(machine("core:4 pu:1"), 4)));
}

TEST(BindingPlan, B50MoreRanksThanCpusShareAllOfThem)
{
    const Shares shares = plan({{7, 3, 0, 0}}, 4);
    for (const struct tv_bind_share &share : shares) {
        EXPECT_EQ("7", text(share.cpus));
        EXPECT_TRUE(share.is_shared);
    }
    for (const struct tv_bind_share &share : plan(machine("core:2 pu:1"), 3))
        EXPECT_EQ("0-1", text(share.cpus));
}

TEST(BindingPlan, CoresStayWhole)
{
    /* Linux numbers the second threads of all cores behind the first ones. */
    const std::vector<struct tv_cpu> cpus = {{0, 0, 0, 0}, {4, 0, 0, 0}, {1, 1, 0, 0},
                                             {5, 1, 0, 0}, {2, 2, 0, 0}, {6, 2, 0, 0},
                                             {3, 3, 0, 0}, {7, 3, 0, 0}};
    EXPECT_EQ((Texts{"0-1,4-5", "2-3,6-7"}), texts(plan(cpus, 2)));
    EXPECT_EQ((Texts{"0,4", "1,5", "2-3,6-7"}), texts(plan(cpus, 3)));
    EXPECT_EQ((Texts{"0", "4", "1", "5", "2", "6", "3", "7"}), texts(plan(cpus, 8)));
    EXPECT_FALSE(plan(cpus, 8)[0].is_shared);
}

TEST(BindingPlan, B50OneThreadOfEachCore)
{
    const std::vector<struct tv_cpu> cpus = {
        {0, 0, 0, 0}, {2, 1, 0, 0}, {4, 2, 0, 0}, {6, 3, 0, 0}};
    EXPECT_EQ((Texts{"0,2", "4,6"}), texts(plan(cpus, 2)));
}

TEST(BindingPlan, FairOverNumaNodes)
{
    const Shares shares = plan(machine("package:2 [numa] core:4 pu:1"), 4);
    EXPECT_EQ((Texts{"0-1", "2-3", "4-5", "6-7"}), texts(shares));
    EXPECT_EQ("0", text(shares[1].numas));
    EXPECT_EQ("1", text(shares[2].numas));
    EXPECT_EQ("0-1", text(plan(machine("package:2 [numa] core:4 pu:1"), 1)[0].numas));
    for (int ranks = 1; ranks <= 8; ranks++) {
        const Shares any = plan(machine("package:2 [numa] core:4 pu:1"), ranks);
        EXPECT_TRUE(is_disjoint(any)) << ranks;
        for (const struct tv_bind_share &share : any)
            EXPECT_GE(tv_cpu_mask_count(&share.cpus), 8 / ranks);
    }
}

TEST(BindingPlan, B51TwoNumaNodesOfOneSetOfCpus)
{
    const std::vector<struct tv_cpu> cpus = machine("package:2 [numa] [numa] core:2 pu:1");
    ASSERT_EQ(4u, cpus.size());
    const Shares shares = plan(cpus, 2, {0, 2}); /* the first of each package */
    EXPECT_EQ((Texts{"0-1", "2-3"}), texts(shares));
    EXPECT_TRUE(is_disjoint(plan(cpus, 4)));
}

TEST(BindingPlan, GpusTakeTheirNumaNode)
{
    const std::vector<struct tv_cpu> cpus = machine("package:4 [numa] core:2 pu:1");
    const Shares shares = plan(cpus, 4, {3, 1, 3, 1});
    EXPECT_EQ((Texts{"6", "2", "7", "3"}), texts(shares));
    EXPECT_EQ("3", text(shares[0].numas));
    EXPECT_TRUE(is_disjoint(shares));
}

TEST(BindingPlan, Row18ANodeWithoutUsableCpusIsMissed)
{
    const std::vector<struct tv_cpu> cpus = {
        {0, 0, 0, 0}, {1, 1, 0, 0}, {2, 2, 1, 0}, {3, 3, 1, 0}};
    const Shares shares = plan(cpus, 2, {5, 1});
    EXPECT_TRUE(shares[0].misses_wish);
    EXPECT_FALSE(shares[1].misses_wish);
    EXPECT_EQ((Texts{"0-1", "2-3"}), texts(shares));
    const Shares crowded = plan(cpus, 3, {5, 1, 0}); /* no node is left */
    EXPECT_EQ("0-3", text(crowded[0].cpus));
    EXPECT_TRUE(crowded[0].is_shared);
}

TEST(BindingPlan, NoCpuIsRefused)
{
    struct tv_bind_share share;
    EXPECT_EQ(TV_INVALID, tv_binding_plan(0, nullptr, 1, nullptr, &share));
}

/* ---- this machine ---- */

static std::string kernel_view()
{
    std::ifstream status("/proc/thread-self/status");
    const std::string key = "Cpus_allowed_list:";
    for (std::string line; std::getline(status, line);) {
        if (line.rfind(key, 0) == 0)
            return line.substr(line.find_first_not_of(" \t", key.size()));
    }
    return "";
}

TEST(BindThread, B51ACpuOutsideTheMachineIsReportedWithTheMaskInForce)
{
    std::thread([] {
        struct tv_cpu_mask mask = {};
        tv_cpu_mask_add(&mask, 8000);
        EXPECT_EQ(TV_UNSUPPORTED, tv_bind_thread(&mask));
        const std::string message = tv_error_message();
        EXPECT_NE(std::string::npos, message.find("8000")) << message;
        EXPECT_NE(std::string::npos, message.find("in force: " + kernel_view())) << message;
    }).join();
}

TEST(BindThread, B51PartOfAMaskThatTheKernelCutsIsReported)
{
    std::thread([] {
        struct tv_cpu_mask mask;
        ASSERT_OK(tv_cpu_mask_now(&mask));
        EXPECT_EQ(kernel_view(), text(mask));
        tv_cpu_mask_add(&mask, 8000);
        EXPECT_EQ(TV_UNSUPPORTED, tv_bind_thread(&mask));
    }).join();
}

static void bind_all(struct tv_comm *world, int is_wanted, tv_bind_kind_t expected)
{
    struct tv_nodes nodes = {};
    struct tv_machine machine = {};
    struct tv_binding binding = {};
    struct tv_cpu_mask before, after;
    ASSERT_OK(tv_cpu_mask_now(&before));
    ASSERT_OK(tv_nodes_find(world, nullptr, &nodes));
    ASSERT_OK(tv_machine_share(&nodes, nullptr, &machine));
    ASSERT_OK(tv_bind(world, &nodes, &machine, is_wanted, -1, &binding));
    ASSERT_OK(tv_cpu_mask_now(&after));
    EXPECT_EQ(expected, binding.kind);
    EXPECT_EQ(kernel_view(), binding.cpus);
    EXPECT_EQ(tv_cpu_mask_count(&after), binding.num_cpus);
    EXPECT_GE(binding.num_cpus, 1);
    for (int cpu = 0; cpu < TV_MAX_CPUS; cpu++)
        EXPECT_TRUE(!tv_cpu_mask_has(&after, cpu) || tv_cpu_mask_has(&before, cpu)) << cpu;
    if (expected != TV_BIND_OWN) {
        EXPECT_EQ(text(before), text(after));
    }
    tv_machine_free(&machine);
    tv_nodes_free(&nodes);
}

TEST(Bind, ThreadsGetSharesOfTheProcess)
{
    struct tv_cpu_mask mask;
    ASSERT_OK(tv_cpu_mask_now(&mask));
    const int num_cpus = tv_cpu_mask_count(&mask);
    run_threads(1, [](struct tv_comm *world) { bind_all(world, 1, TV_BIND_OWN); });
    run_threads(num_cpus, [](struct tv_comm *world) { bind_all(world, 1, TV_BIND_OWN); });
    run_threads(num_cpus + 1, [](struct tv_comm *world) { bind_all(world, 1, TV_BIND_SHARED); });
    run_threads(num_cpus, [](struct tv_comm *world) { bind_all(world, 0, TV_BIND_NONE); });
}

TEST(Bind, WhatTheLauncherBoundStays)
{
    struct tv_cpu_mask mask;
    ASSERT_OK(tv_cpu_mask_now(&mask));
    if (tv_cpu_mask_count(&mask) < 2)
        GTEST_SKIP() << "one CPU";
    run_threads(2, [&](struct tv_comm *world) {
        struct tv_cpu_mask one = {};
        int skip = tv_comm_rank(world);
        for (int cpu = 0; cpu < TV_MAX_CPUS && skip >= 0; cpu++) {
            if (tv_cpu_mask_has(&mask, cpu) && skip-- == 0)
                tv_cpu_mask_add(&one, cpu);
        }
        ASSERT_OK(tv_bind_thread(&one));
        bind_all(world, 1, TV_BIND_KEPT);
    });
}
