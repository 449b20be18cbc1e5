/* tests/mesh/test_mapper_exact.cc -- the mapper against exhaustive search on random machines of up to
 * 16 devices: no layout is cheaper, and the cost is what an independent count says. */
#include "mesh/machines.h"
#include <array>
#include <gtest/gtest.h>
#include <map>
#include <random>
#include <tuple>

namespace
{

/* A tree of cuts, written down by the generator rather than by the mapper: rates by subtree. */
struct Cut {
    int begin, end;
    double rate, latency;
};
struct Instance {
    Machines machines;
    std::vector<Cut> cuts;  /* GPUs too */
    std::vector<int> group; /* [devices] devices of one group are interchangeable */
    int P = 1, D = 1, T = 1;
    tv_traffic traffic = {};
    int num_devices = 0;
};

int pick(std::mt19937 &random, int low, int high)
{
    return std::uniform_int_distribution<int>(low, high)(random);
}

void add_node(Instance &instance, std::mt19937 &random, int size, bool is_uniform, int leaf)
{
    const double rates[] = {1, 2, 4};
    const double nic = is_uniform ? 2 : rates[pick(random, 0, 2)],
                 gpu = is_uniform || pick(random, 0, 1) == 0 ? 8 : 3;
    const int begin = instance.num_devices;
    instance.machines.node(instance.machines.shape(size, gpu, nic), leaf);
    for (int i = 0; i < size; i++) {
        instance.cuts.push_back({begin + i, begin + i + 1, gpu, 0});
        instance.group.push_back(begin);
    }
    instance.num_devices += size;
    instance.cuts.push_back({begin, begin + size, nic, 1});
}

/* Two or three levels, alike or not, with up to `most` devices. */
void add_machines(Instance &instance, std::mt19937 &random, int most)
{
    const bool is_uniform = pick(random, 0, 1) != 0, has_leaves = pick(random, 0, 1) != 0;
    const int num_leaves = has_leaves ? pick(random, 2, 3) : 1;
    const int size = pick(random, 1, most >= 12 ? 5 : 4), nodes = pick(random, 2, 4);
    for (int leaf = 0; leaf < num_leaves; leaf++) {
        const int begin = instance.num_devices;
        const double rate = pick(random, 1, 3);
        const int index = has_leaves ? instance.machines.add_switch(-1, rate) : -1;
        for (int n = 0; n < nodes; n++) {
            const int own = is_uniform ? size : pick(random, 1, size + 1);
            if (instance.num_devices + own <= most)
                add_node(instance, random, own, is_uniform, index);
        }
        if (has_leaves && instance.num_devices > begin)
            instance.cuts.push_back({begin, instance.num_devices, rate, 1});
    }
}

/* A mesh of as many devices, or of up to four fewer. */
void add_mesh(Instance &instance, std::mt19937 &random)
{
    const int N = std::max(1, instance.num_devices - std::max(0, pick(random, -4, 4)));
    std::vector<std::vector<int>> shapes;
    for (int P = 1; P <= N; P++) {
        for (int D = 1; D <= N / P; D++) {
            if (N % (P * D) == 0)
                shapes.push_back({P, D, N / (P * D)});
        }
    }
    const auto &shape =
        shapes[static_cast<size_t>(pick(random, 0, static_cast<int>(shapes.size()) - 1))];
    instance.P = shape[0];
    instance.D = shape[1];
    instance.T = shape[2];
    const double loads[] = {0, 1, 3, 10, 50, 200};
    for (int a = 0; a < TV_NUM_AXES; a++) {
        instance.traffic.load[a] = 1e9 * loads[pick(random, 0, 5)];
        instance.traffic.exposed[a] = pick(random, 0, 3) == 0 ? 0.5 : 1;
        instance.traffic.alpha[a] = pick(random, 0, 3) == 0 ? 0.25 : 0;
    }
    instance.traffic.wraps_pipe = pick(random, 0, 3) == 0;
}

/* In half of all instances; cuts are marked 0 inside and 1 out of nodes. Cuts around the same devices
 * count as one, with the worse of each. */
void add_latencies(Instance &instance, std::mt19937 random)
{
    const double inside = pick(random, 0, 1) * 0.25, outside = inside * pick(random, 1, 8);
    for (double &rounds : instance.traffic.rounds)
        rounds = pick(random, 0, 20);
    instance.machines.set_latencies(inside, outside);
    for (Cut &cut : instance.cuts)
        cut.latency = cut.latency > 0 ? outside : inside;
    for (Cut &cut : instance.cuts) {
        for (Cut &other : instance.cuts) {
            if (cut.begin == other.begin && cut.end == other.end) {
                cut.rate = other.rate = std::min(cut.rate, other.rate);
                cut.latency = other.latency = std::max(cut.latency, other.latency);
            }
        }
    }
}

/* The cost by definition, from the cells on each device (-1: none). */
class Judge
{
  public:
    explicit Judge(const Instance &instance) : in_(instance)
    {
    }

    /* Loads of one cut into T_a, if it is slower than what was there. */
    void load(const Cut &cut, const std::vector<int> &cell_of, double slowest[TV_NUM_AXES]) const
    {
        const int N = in_.P * in_.D * in_.T;
        std::vector<char> inside(static_cast<size_t>(N), 0);
        for (int i = cut.begin; i < cut.end; i++) {
            if (cell_of[static_cast<size_t>(i)] >= 0)
                inside[static_cast<size_t>(cell_of[static_cast<size_t>(i)])] = 1;
        }
        int num[TV_NUM_AXES] = {0, 0, 0};
        const int extent[] = {in_.P, in_.D, in_.T}, stride[] = {in_.D * in_.T, in_.T, 1};
        for (int cell = 0; cell < N; cell++) {
            for (int a = TV_DATA; a <= TV_TENSOR; a++) {
                if (cell / stride[a] % extent[a] != 0)
                    continue;
                int members = 0;
                for (int k = 0; k < extent[a]; k++)
                    members += inside[static_cast<size_t>(cell + k * stride[a])];
                num[a] += members > 0 && members < extent[a];
            }
            const bool is_last = cell + stride[TV_PIPE] >= N;
            if (is_last && !in_.traffic.wraps_pipe)
                continue;
            num[TV_PIPE] += inside[static_cast<size_t>(cell)] !=
                            inside[static_cast<size_t>((cell + stride[TV_PIPE]) % N)];
        }
        for (int a = 0; a < TV_NUM_AXES; a++) {
            if (num[a] > 0 && in_.traffic.load[a] > 0)
                slowest[a] = std::max(slowest[a], in_.traffic.load[a] * num[a] / (cut.rate * 1e9) +
                                                      in_.traffic.rounds[a] * cut.latency);
        }
    }
    double total(const double slowest[TV_NUM_AXES]) const
    {
        const int extent[] = {in_.P, in_.D, in_.T};
        double total = 0;
        for (int a = 0; a < TV_NUM_AXES; a++)
            total +=
                in_.traffic.exposed[a] * (slowest[a] + (extent[a] > 1 ? in_.traffic.alpha[a] : 0));
        return total;
    }

  private:
    const Instance &in_;
};

/* Is there a layout below `target`? Devices are filled in order; a cut is judged when its last device
 * is; a partial layout that costs `target` already is left. Two symmetries are used: within a group of
 * interchangeable devices cells ascend, and since replicas and tensor ranks may be renamed, a d or t
 * is used only after all smaller ones (the first of all equal layouts in lexicographic order obeys
 * both). Where a group begins, what follows depends on the cells placed so far, on which of them lie
 * in a cut that is still open, and on the slowest cuts: a state no better than one seen is left. */
class Exhaustive
{
  public:
    Exhaustive(const Instance &instance, double target)
        : in_(instance), judge_(instance), target_(target),
          placed_(static_cast<size_t>(instance.num_devices)),
          cell_of_(static_cast<size_t>(instance.num_devices), -1),
          num_cells_(instance.P * instance.D * instance.T),
          cuts_at_(static_cast<size_t>(instance.num_devices))
    {
        for (const Cut &cut : instance.cuts)
            cuts_at_[static_cast<size_t>(cut.end - 1)].push_back(cut);
    }
    bool finds()
    {
        const double none[TV_NUM_AXES] = {0, 0, 0};
        return search(0, 0u, 0, 0, 0, none);
    }

  private:
    bool search(int device, unsigned used, int num_used, int num_d, int num_t,
                const double before[TV_NUM_AXES])
    {
        if (device == in_.num_devices)
            return true; /* every cut was judged below the target */
        const size_t at = static_cast<size_t>(device);
        const bool continues = device > 0 && in_.group[at] == in_.group[at - 1];
        placed_[at] = used;
        if (!continues && was_seen(device, before))
            return false;
        const int least = continues ? cell_of_[at - 1] : -1;
        const bool may_skip = in_.num_devices - device > num_cells_ - num_used && least < 0;
        for (int cell = may_skip ? -1 : std::max(least + 1, 0); cell < num_cells_; cell++) {
            if (cell >= 0 && (used >> cell & 1) != 0)
                continue;
            const int d = cell < 0 ? -1 : cell / in_.T % in_.D, t = cell < 0 ? -1 : cell % in_.T;
            if (d > num_d || t > num_t)
                continue;
            cell_of_[at] = cell;
            if (num_cells_ - num_used - (cell >= 0) > in_.num_devices - device - 1)
                continue;
            double slowest[TV_NUM_AXES] = {before[0], before[1], before[2]};
            for (const Cut &cut : cuts_at_[at])
                judge_.load(cut, cell_of_, slowest);
            if (judge_.total(slowest) < target_ &&
                search(device + 1, cell >= 0 ? used | 1u << cell : used, num_used + (cell >= 0),
                       std::max(num_d, d + 1), std::max(num_t, t + 1), slowest))
                return true;
        }
        return false;
    }

    bool was_seen(int device, const double slowest[TV_NUM_AXES])
    {
        unsigned before_open = placed_[static_cast<size_t>(device)];
        for (const Cut &cut : in_.cuts) { /* at most one is open: there are three levels */
            if (cut.begin < device && cut.end > device)
                before_open = placed_[static_cast<size_t>(cut.begin)];
        }
        auto &seen = seen_[{device, placed_[static_cast<size_t>(device)], before_open}];
        for (const auto &other : seen) {
            if (other[0] <= slowest[0] && other[1] <= slowest[1] && other[2] <= slowest[2])
                return true;
        }
        seen.push_back({slowest[0], slowest[1], slowest[2]});
        return false;
    }

    const Instance &in_;
    Judge judge_;
    double target_;
    std::map<std::tuple<int, unsigned, unsigned>, std::vector<std::array<double, 3>>> seen_;
    std::vector<unsigned> placed_; /* [devices] cells on earlier devices */
    std::vector<int> cell_of_;
    int num_cells_;
    std::vector<std::vector<Cut>> cuts_at_;
};

void check(int seed, int most)
{
    std::mt19937 random(static_cast<unsigned>(seed));
    Instance instance;
    add_machines(instance, random, most);
    add_mesh(instance, random);
    add_latencies(instance, random);
    tv_map_args args =
        map_args(instance.machines.view(), instance.P, instance.D, instance.T, 0, 0, 0);
    args.traffic = instance.traffic;
    Map map(args);
    ASSERT_EQ(TV_OK, map.status) << tv_error_message();
    ASSERT_TRUE(map->is_exact) << "seed " << seed;

    std::vector<int> cell_of(static_cast<size_t>(instance.num_devices), -1);
    std::vector<int> seen(static_cast<size_t>(map->num_ranks), 0);
    for (int r = 0; r < map->num_arrivals; r++) {
        cell_of[static_cast<size_t>(r)] = map->mesh_rank[r]; /* arrivals are node by node */
        if (map->mesh_rank[r] >= 0)
            seen[static_cast<size_t>(map->mesh_rank[r])]++;
    }
    for (int times : seen)
        ASSERT_EQ(1, times);
    const Judge judge(instance);
    double slowest[TV_NUM_AXES] = {0, 0, 0};
    for (const Cut &cut : instance.cuts)
        judge.load(cut, cell_of, slowest);
    ASSERT_NEAR(judge.total(slowest), map->chosen.total, 1e-9 * map->chosen.total)
        << "seed " << seed;
    ASSERT_LE(map->chosen.total, map->identity.total * (1 + 1e-12));
    ASSERT_LE(map->identity.total, map->worst.total);
    ASSERT_LE(map->lower_bound, map->chosen.total * (1 + 1e-12));
    ASSERT_TRUE(Exhaustive(instance, map->chosen.total * (1 + 1e-9) + 1e-9).finds());
    ASSERT_FALSE(Exhaustive(instance, map->chosen.total * (1 - 1e-9)).finds())
        << "seed " << seed << ": " << instance.num_devices << " devices, pipe=" << instance.P
        << " data=" << instance.D << " tensor=" << instance.T << ", J=" << map->chosen.total;
}

} // namespace

TEST(MapperExact, NoLayoutOfUpToEightDevicesIsCheaper)
{
    for (int seed = 0; seed < 400; seed++)
        ASSERT_NO_FATAL_FAILURE(check(seed, 8));
}

TEST(MapperExact, NoLayoutOfUpToTwelveDevicesIsCheaper)
{
    for (int seed = 0; seed < 300; seed++)
        ASSERT_NO_FATAL_FAILURE(check(1000 + seed, 12));
}

TEST(MapperExact, NoLayoutOfUpToSixteenDevicesIsCheaper)
{
    for (int seed = 0; seed < 300; seed++)
        ASSERT_NO_FATAL_FAILURE(check(2000 + seed, 16));
}
