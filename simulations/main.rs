fn main() {
    mad_turmoil::rand::set_rng(rand::SeedableRng::seed_from_u64(1));
}
