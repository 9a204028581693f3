"""What needs several rooms: finding models, making and caching artifacts, choosing a backend, the parity gate."""
