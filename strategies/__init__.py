"""The shared language: how a question is answered together. Imported by nodes, coordinators and laptops alike."""
